"""What the kernels for processors need: their calls, packed and int8 weights, oneDNN's products, and memory."""

// Deflate (RFC 1951) in a zlib wrapper (RFC 1950), read when a block is first looked at: a browser's own stream gives its
// bytes only later, and a page of many heads shows one of them.
const ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
type Symbols = [smallest: number, furtherBits: number][];
const LENGTHS: Symbols = [];
const DISTANCES: Symbols = [];
for (let i = 0, at = 3; i < 28; i++) {
  const bits = i < 8 ? 0 : (i - 4) >> 2;
  LENGTHS.push([at, bits]);
  at += 1 << bits;
}
LENGTHS.push([258, 0]);
for (let i = 0, at = 1; i < 30; i++) {
  const bits = i < 4 ? 0 : (i - 2) >> 1;
  DISTANCES.push([at, bits]);
  at += 1 << bits;
}

/** The next bits of the stream -> symbol * 16 + its code's length, for codes of these lengths (0: no code). */
function codeTable(lengths: number[]): Uint16Array {
  const longest = Math.max(...lengths, 1);
  const found = new Uint16Array(1 << longest);
  let code = 0;
  for (let length = 1; length <= longest; length++, code <<= 1) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let turned = 0; // codes stand in the stream with their first bit lowest
      for (let bit = 0; bit < length; bit++) turned |= ((code >> bit) & 1) << (length - 1 - bit);
      for (let at = turned; at < found.length; at += 1 << length) found[at] = (symbol << 4) | length;
      code++;
    }
  }
  return found;
}

const times = (count: number, length: number): number[] => Array<number>(count).fill(length);
const FIXED = [codeTable([...times(144, 8), ...times(112, 9), ...times(24, 7), ...times(8, 8)]), codeTable(times(30, 5))];

/** At most `most` bytes of what `bytes` holds. */
export function inflate(bytes: Uint8Array, most: number): Uint8Array {
  const found = new Uint8Array(most);
  let [size, at, held, count] = [0, 2, 0, 0];
  const need = (n: number): void => {
    while (count < n) {
      held |= bytes[at++] << count;
      count += 8;
    }
  };
  const bits = (n: number): number => {
    need(n);
    const value = held & ((1 << n) - 1);
    held >>>= n;
    count -= n;
    return value;
  };
  const symbol = (codes: Uint16Array): number => {
    need(15);
    const entry = codes[held & (codes.length - 1)];
    held >>>= entry & 15;
    count -= entry & 15;
    return entry >> 4;
  };
  for (let last = 0; !last; ) {
    last = bits(1);
    const kind = bits(2);
    if (kind === 0) {
      at -= count >> 3; // whole bytes that were read ahead
      const length = bytes[at] | (bytes[at + 1] << 8);
      held = count = 0;
      found.set(bytes.subarray(at + 4, at + 4 + length), size);
      [at, size] = [at + 4 + length, size + length];
      continue;
    }
    let [values, distances] = FIXED;
    if (kind === 2) {
      const [n, m, k] = [bits(5) + 257, bits(5) + 1, bits(4) + 4];
      const own = times(19, 0);
      for (let i = 0; i < k; i++) own[ORDER[i]] = bits(3);
      const codes = codeTable(own);
      const lengths: number[] = [];
      while (lengths.length < n + m) {
        const next = symbol(codes);
        if (next < 16) lengths.push(next);
        else {
          const again = next === 16 ? 3 + bits(2) : next === 17 ? 3 + bits(3) : 11 + bits(7);
          lengths.push(...times(again, next === 16 ? lengths[lengths.length - 1] : 0));
        }
      }
      [values, distances] = [codeTable(lengths.slice(0, n)), codeTable(lengths.slice(n))];
    }
    for (;;) {
      const next = symbol(values);
      if (next < 256) found[size++] = next;
      else if (next === 256) break;
      else {
        const [length, more] = LENGTHS[next - 257];
        let left = length + bits(more);
        const [distance, further] = DISTANCES[symbol(distances)];
        for (let from = size - distance - bits(further); left; left--) found[size++] = found[from++];
      }
    }
  }
  return found.subarray(0, size);
}

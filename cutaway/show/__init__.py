"""How results show themselves: in a terminal, as HTML, and in one line; text of users and models is never markup."""

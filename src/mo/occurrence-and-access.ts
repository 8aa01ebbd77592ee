/** DDF Occurrence of nodes that need not exist: any number of nodes, or one. */
export const zeroOrMore = { occurs: 'ZeroOrMore' } as const;
export const zeroOrOne = { occurs: 'ZeroOrOne' } as const;

/** DDF AccessType of interior nodes that a server creates and deletes. */
export const serverCreated = ['Add', 'Delete', 'Get'] as const;
/** DDF AccessType of leaves that a server creates, writes and deletes. */
export const serverWritten = ['Add', 'Delete', 'Get', 'Replace'] as const;

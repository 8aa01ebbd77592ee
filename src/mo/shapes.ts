/** Shapes that the nodes of management objects have in common. */
export const many = { occurs: 'ZeroOrMore' } as const;
export const maybe = { occurs: 'ZeroOrOne' } as const;
/** Access to interior nodes, and to leaves, that a server makes. */
export const nodes = ['Add', 'Delete', 'Get'] as const;
export const values = ['Add', 'Delete', 'Get', 'Replace'] as const;

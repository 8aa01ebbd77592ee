import type { NodeFormat } from './tnds.ts';

export type AccessType = 'Add' | 'Delete' | 'Exec' | 'Get' | 'Replace';
export type Occurrence = 'One' | 'ZeroOrOne' | 'ZeroOrMore' | 'OneOrMore';

/** One node of a management object's description (OMA DM tree and description 1.2.1, section 10, the DDF). */
export interface NodeDescription {
  readonly format: NodeFormat;
  readonly access: readonly AccessType[];
  readonly occurs: Occurrence;
  /** Default MIME type of a leaf. */
  readonly type?: string;
  readonly description: string;
  /** By name; `*` stands for names that are chosen at run time. */
  readonly children?: Readonly<Record<string, NodeDescription>>;
  /** A secret: it may be written, is never read, and never logged. */
  readonly secret?: true;
}

/** A management object: data from which the tree, the DDF and the documentation come. */
export interface ManagementObject {
  /** Management object identifier, a URN. */
  readonly id: string;
  readonly root: NodeDescription & { readonly format: 'node' };
}

type Options = Partial<Pick<NodeDescription, 'occurs' | 'type' | 'secret'>>;

export const leaf = (
  format: Exclude<NodeFormat, 'node'>,
  access: readonly AccessType[],
  description: string,
  options: Options = {},
): NodeDescription => ({ format, access, occurs: 'One', description, ...options });

export const interior = (
  access: readonly AccessType[],
  description: string,
  children: Readonly<Record<string, NodeDescription>>,
  options: Options = {},
): NodeDescription & { format: 'node' } => ({
  format: 'node',
  access,
  occurs: 'One',
  description,
  children,
  ...options,
});

/** Whether the node at `path` is there for good (Scope, section 10.4): its name, and that of each node above it, is given. */
export function isPermanent(root: NodeDescription, path: readonly string[]): boolean {
  let found: NodeDescription | undefined = root;
  for (const name of path) {
    const named: NodeDescription | undefined = found?.children?.[name];
    if (!named || named.occurs === 'ZeroOrOne' || named.occurs === 'ZeroOrMore') return false;
    found = named;
  }
  return true;
}

/** The description of the node at `path` below an MO's root, by name or by wildcard. */
export function describe(root: NodeDescription, path: readonly string[]): NodeDescription | undefined {
  let found: NodeDescription | undefined = root;
  for (const name of path) found = found?.children?.[name] ?? found?.children?.['*'];
  return found;
}

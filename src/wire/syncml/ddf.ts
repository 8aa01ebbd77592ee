import type { NodeFormat } from './tnds.ts';

/** Commands that a node permits (OMA DM tree and description 1.2.1, section 10). */
export type AccessType = 'Add' | 'Delete' | 'Exec' | 'Get' | 'Replace';
/** How often a node occurs below its parent (OMA DM tree and description 1.2.1, section 10). */
export type Occurrence = 'One' | 'ZeroOrOne' | 'ZeroOrMore' | 'OneOrMore';

/** Description of one node of a management object (OMA DM tree and description 1.2.1, section 10, the DDF). */
export interface NodeDescription {
  readonly format: NodeFormat;
  readonly access: readonly AccessType[];
  readonly occurs: Occurrence;
  /** Default MIME type of a leaf. */
  readonly type?: string;
  readonly description: string;
  /** Child nodes by name. `*` stands for all names that are chosen at run time. */
  readonly children?: Readonly<Record<string, NodeDescription>>;
  /** The value is a secret: it may be written, but is never read or logged. */
  readonly secret?: true;
}

/** Declaration of a management object. The tree, the DDF and the documentation are made from it. */
export interface ManagementObject {
  /** Management object identifier, a URN. */
  readonly id: string;
  readonly root: NodeDescription & { readonly format: 'node' };
}

type Options = Partial<Pick<NodeDescription, 'occurs' | 'type' | 'secret'>>;

/** Describes a leaf that occurs once, unless `options` say otherwise. */
export const leaf = (
  format: Exclude<NodeFormat, 'node'>,
  access: readonly AccessType[],
  description: string,
  options: Options = {},
): NodeDescription => ({ format, access, occurs: 'One', description, ...options });

/** Describes an interior node that occurs once, unless `options` say otherwise. */
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

/**
 * Whether the node at `path` is permanent (Scope, section 10.4): the description names it and each node above it, and
 * none of them is optional. `path` is relative to the root of the management object.
 */
export function isPermanent(root: NodeDescription, path: readonly string[]): boolean {
  let found: NodeDescription | undefined = root;
  for (const name of path) {
    const named: NodeDescription | undefined = found?.children?.[name];
    if (!named || named.occurs === 'ZeroOrOne' || named.occurs === 'ZeroOrMore') return false;
    found = named;
  }
  return true;
}

/** The description of the node at `path` below the root of a management object, by name or by `*`. */
export function describe(root: NodeDescription, path: readonly string[]): NodeDescription | undefined {
  let found: NodeDescription | undefined = root;
  for (const name of path) found = found?.children?.[name] ?? found?.children?.['*'];
  return found;
}

import type { AccessType, ManagementObject, NodeDescription } from './ddf.ts';
import type { DdfElement } from './ddf-builder.ts';
import { branch, leafText, writeDdf } from './ddf-xml.ts';

/** Order of access types in a DDF document. */
const order: readonly AccessType[] = ['Add', 'Delete', 'Exec', 'Get', 'Replace'];

/**
 * The DDF of a management object as XML (OMA DM tree and description 1.2.1, section 10). It is made from the same
 * declaration that the engine enforces. A node whose name is chosen at run time has an empty NodeName.
 * @param name name of the root node; `*` for a name that is chosen at run time
 */
export function ddfDocument({ id, root }: ManagementObject, name: string): string {
  return writeDdf(
    branch(
      'MgmtTree',
      leafText('VerDTD', '1.2'),
      leafText('Man', 'Postern'),
      nodeOf(name, root, root.occurs !== 'ZeroOrMore', id),
    ),
  );
}

function nodeOf(name: string, node: NodeDescription, permanent: boolean, id?: string): DdfElement {
  const { format, access, occurs, type, description, children = {} } = node;
  const isNamed = name !== '*';
  return branch(
    'Node',
    leafText('NodeName', isNamed ? name : ''),
    branch(
      'DFProperties',
      branch('AccessType', ...order.filter((each) => access.includes(each)).map((each) => branch(each))),
      leafText('Description', description),
      branch('DFFormat', branch(format)),
      branch('Occurrence', branch(occurs)),
      branch('Scope', branch(permanent ? 'Permanent' : 'Dynamic')),
      branch(
        'DFType',
        format === 'node' ? leafText('DDFName', id ?? '') : leafText('MIME', type ?? 'text/plain'),
      ),
    ),
    ...Object.entries(children).map(([child, inner]) =>
      nodeOf(
        child,
        inner,
        permanent && child !== '*' && inner.occurs !== 'ZeroOrOne' && inner.occurs !== 'ZeroOrMore',
      ),
    ),
  );
}

/** Formats an XML document for people: one line for each element, indented. */
export const indented = (document: string): string => {
  let depth = 0;
  return document
    .replace(/></g, '>\n<')
    .split('\n')
    .map((line) => {
      if (line.startsWith('</')) depth--;
      const shown = '  '.repeat(depth) + line;
      if (/^<[^/!?]/.test(line) && !line.endsWith('/>') && !line.includes('</')) depth++;
      return shown;
    })
    .join('\n');
};

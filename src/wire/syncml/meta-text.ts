import { type Element, isPacked } from './elements.ts';

/** The text of Format or Type in the Meta among the elements of a command or item. */
export function metaText(siblings: readonly Element[], wanted: 'Format' | 'Type'): string | undefined {
  const meta = siblings.find(({ name }) => name === 'Meta')?.content;
  if (!Array.isArray(meta)) return undefined;
  const found = (meta as readonly Element[]).find(({ name }) => name === wanted)?.content;
  return typeof found === 'string' ? found : undefined;
}

/** Whether WBXML writes octets in the Data of an item with these elements as opaque data, and not as base64. */
export const hasOpaqueData = (item: readonly Element[]): boolean => isPacked(metaText(item, 'Type'));

import { fromCbor, toCbor } from '../../base/cbor.ts';
import { PosternError } from '../../base/errors.ts';
import type { Content, Element } from './elements.ts';
import { elements, keyOf, messageLimits, nameOfKey } from './elements.ts';

type Coded = string | Uint8Array | true | readonly (number | Coded)[];

/**
 * Writes a message as CBOR (docs/bindings.md). The content of an element is a text, a byte string, `true`, or an array
 * of elements, each of which is its key followed by its content. An array keeps order and repetition, which a map would
 * not, and gives every message exactly one form.
 */
export function encodeCbor(root: Element): Uint8Array {
  return toCbor(codedContent([root]));
}

function codedContent(content: Content): Coded {
  if (typeof content === 'string' || content === true || content instanceof Uint8Array) return content;
  return content.flatMap((element) => [keyOf(element.name), codedContent(element.content)]);
}

/**
 * Reads a message in CBOR. Elements with an unknown key are skipped.
 * @throws {PosternError} `malformed` or `tooLarge`
 */
export function decodeCbor(coded: Uint8Array): Element {
  if (coded.length > messageLimits.bytes)
    throw new PosternError('tooLarge', `message of more than ${messageLimits.bytes} bytes`);
  const value = fromCbor(coded, 'the message');
  const budget = { elements: messageLimits.elements };
  const [root, ...more] = readElements(value, 0, budget);
  if (!root || more.length > 0) throw new PosternError('malformed', 'the CBOR holds no message or several');
  return root;
}

function readElements(value: unknown, depth: number, budget: { elements: number }): Element[] {
  if (!Array.isArray(value) || value.length % 2 !== 0)
    throw new PosternError('malformed', 'elements must be an array of keys and contents');
  budget.elements -= value.length / 2;
  if (depth > messageLimits.depth || budget.elements < 0)
    throw new PosternError('tooLarge', 'message too deep or of too many elements');
  const found: Element[] = [];
  for (let at = 0; at < value.length; at += 2) {
    const name = nameOfKey(value[at]);
    // An unknown key may come from a later version, so the element is skipped.
    if (name) found.push({ name, content: readContent(name, value[at + 1], depth, budget) });
  }
  return found;
}

function readContent(
  name: keyof typeof elements,
  value: unknown,
  depth: number,
  budget: { elements: number },
): Content {
  if (elements[name].kind === 'container') return readElements(value, depth + 1, budget);
  if (typeof value === 'string' || value instanceof Uint8Array || value === true) return value;
  throw new PosternError('malformed', `<${name}> must hold text, octets or true`);
}

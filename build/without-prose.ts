// A plugin of esbuild: leaves texts out of a bundle that only documents need.
import { readFileSync } from 'node:fs';
import type { Plugin } from 'esbuild';

/**
 * Calls with a text that goes: the explanation of a key of the configuration, which is for docs/configuration.md, and that of a
 * node of a management object, which `postern ddf` prints.
 */
const explained = {
  described: { file: /(config|vocabulary)\.ts$/, at: 1, becomes: (schema: string) => `(${schema})` },
  leaf: { file: /\/src\/mo\//, at: 2, becomes: undefined },
  interior: { file: /\/src\/mo\//, at: 1, becomes: undefined },
} as const;
type Explained = keyof typeof explained;
type Range = readonly [start: number, end: number];

/**
 * Takes the texts out of calls of a function.
 * @param source TypeScript, formatted
 * @throws {Error} when a call has no text in its place: the bundle would be built wrong
 */
export function withoutProse(source: string, name: Explained): string {
  const { at: place, becomes } = explained[name];
  let out = source;
  const isCall = new RegExp(`(?<![\\w$.#])${name}\\($`);
  for (let at = out.lastIndexOf(`${name}(`); at >= 0; at = out.lastIndexOf(`${name}(`, at - 1)) {
    const from = at + name.length + 1;
    if (isCall.test(out.slice(0, from))) {
      const { list, end } = argumentsOf(out, from);
      const [start, stop] = list[place] ?? [0, 0];
      if (!/^\s*(\w+|(['"`])[\s\S]*\2)\s*$/.test(out.slice(start, stop)))
        throw new Error(`argument ${place} is no text, and no name of one: ${out.slice(at, end + 1)}`);
      out = becomes
        ? out.slice(0, at) + becomes(out.slice(...list[0]!)) + out.slice(end + 1)
        : `${out.slice(0, start)}''${out.slice(stop)}`;
    }
    if (at === 0) break;
  }
  return out;
}

/** Where the arguments of a call and its closing parenthesis are. `from` is behind the opening one. */
function argumentsOf(source: string, from: number): { list: readonly Range[]; end: number } {
  const list: Range[] = [];
  let depth = 0;
  let start = from;
  for (let at = from; at < source.length; at++) {
    const character = source[at]!;
    if (character === "'" || character === '"' || character === '`') at = endOfText(source, at);
    else if (source.startsWith('//', at)) at = source.indexOf('\n', at);
    else if ('([{'.includes(character)) depth++;
    else if (depth > 0 && ')]}'.includes(character)) depth--;
    else if (depth === 0 && (character === ',' || character === ')')) {
      if (source.slice(start, at).trim() !== '') list.push([start, at]);
      start = at + 1;
      if (character === ')') return { list, end: at };
    }
  }
  throw new Error('a call without an end');
}

function endOfText(source: string, from: number): number {
  for (let at = from + 1; at < source.length; at++)
    if (source[at] === '\\') at++;
    else if (source[at] === source[from]) return at;
  throw new Error('a text without an end');
}

/** @param names calls whose texts this bundle does not need */
export const leaveProseOut = (names: readonly Explained[]): Plugin => ({
  name: 'without-prose',
  setup(context) {
    context.onLoad({ filter: /\/src\/.*\.ts$/ }, ({ path }) => {
      const used = names.filter((name) => explained[name].file.test(path));
      if (used.length === 0) return undefined;
      const contents = used.reduce((source, name) => withoutProse(source, name), readFileSync(path, 'utf8'));
      return { contents, loader: 'ts' };
    });
  },
});

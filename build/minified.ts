// The second pass over the gateway's bundle: what esbuild has minified goes through terser, which merges and shortens more.
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { minify } from 'terser';

/**
 * `reduce_funcs` would move a function to its only use. Where that is inside of another function, each call would make it anew.
 * A second pass gives 1.5 KB, a third nothing. `lhs_constants` would put constants before what they are compared with, as in
 * `1===a`, where `a===1` repeats itself more often in the code.
 */
const options = {
  module: true,
  ecma: 2020,
  compress: { passes: 2, reduce_funcs: false, lhs_constants: false },
} as const;

const digestOf = (content: string) => createHash('sha256').update(content).digest('hex');

/**
 * Minifies a module of JavaScript into a file. It takes seconds, so a file that was made from the same code is kept: the digests of
 * both are in a file beside it.
 * @param code an ES module
 */
export async function writeMinified(code: string, file: string): Promise<void> {
  const stamp = `${file}.stamp`;
  const from = digestOf(JSON.stringify([code, options]));
  const made = () => `${from} ${digestOf(readFileSync(file, 'utf8'))}`;
  if (existsSync(stamp) && existsSync(file) && readFileSync(stamp, 'utf8') === made()) return;
  const { code: minified } = await minify(code, structuredClone(options));
  if (!minified) throw new Error(`terser made nothing of ${file}`);
  writeFileSync(file, minified);
  writeFileSync(stamp, made());
}

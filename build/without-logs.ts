// A plugin of esbuild: leaves out of a bundle what mqtt logs for its own developers.
import { readFile } from 'node:fs/promises';
import type { Plugin } from 'esbuild';
import { minify } from 'terser';

/** Calls that print nothing here: Postern gives mqtt no `log`, and the package `debug` is replaced (build/bundle.mjs). */
const silent = ['debug', 'this.log', 'client.log', 'this.client["log"]'];

/**
 * Takes calls of `silent` out of a script. A call whose value is used stays, and so does what an argument calls.
 * @param source JavaScript, of which reading a property changes nothing
 */
export async function withoutLogs(source: string): Promise<string> {
  const compress = { defaults: false, side_effects: true, pure_getters: true, pure_funcs: silent };
  const { code } = await minify(source, { compress, mangle: false, format: { beautify: true } });
  return code ?? '';
}

export const leaveLogsOut: Plugin = {
  name: 'without-logs',
  setup(context) {
    context.onLoad({ filter: /\/node_modules\/(mqtt\/build|mqtt-packet)\/.*\.js$/ }, async ({ path }) => ({
      contents: await withoutLogs(await readFile(path, 'utf8')),
      loader: 'js',
    }));
  },
};

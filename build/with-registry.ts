// A plugin of esbuild: puts the public registry of LwM2M objects into a bundle as a packed text, in place of the code that makes it
// from the package @nordicsemiconductor/lwm2m-types.
import { brotliCompressSync, constants } from 'node:zlib';
import type { Plugin } from 'esbuild';
import * as table from '../src/wire/lwm2m/registry-table.ts';

/** The module registry-table.ts with the table as a constant, which is unpacked at its first use. */
export function packedRegistry(): string {
  const { registryTable, packageText, ...constant } = table;
  const text = registryTable();
  const packed = brotliCompressSync(text, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: constants.BROTLI_MAX_QUALITY,
      [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT,
      [constants.BROTLI_PARAM_SIZE_HINT]: text.length,
    },
  });
  return [
    // esbuild puts it into the file of licences beside the bundle.
    `/*! Names and types of the public registry of LwM2M objects (Open Mobile Alliance), from @nordicsemiconductor/lwm2m-types:\n${packageText('LICENSE')}*/`,
    "import { brotliDecompressSync } from 'node:zlib';",
    ...Object.entries(constant).map(([name, value]) => `export const ${name} = ${JSON.stringify(value)};`),
    `export const registryTable = () => brotliDecompressSync(Buffer.from('${packed.toString('base64')}', 'base64')).toString();`,
  ].join('\n');
}

export const packRegistry: Plugin = {
  name: 'with-registry',
  setup(context) {
    context.onLoad({ filter: /\/src\/wire\/lwm2m\/registry-table\.ts$/ }, () => ({
      contents: packedRegistry(),
      loader: 'js',
    }));
  },
};

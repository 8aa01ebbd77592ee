// A plugin of esbuild: leaves the tables of other parties out of the gateway's bundle, which makes none of them. `postern restore`
// needs to know whose a state is, and of which version: the number of steps.
import type { Plugin } from 'esbuild';
import type { Schema } from '../src/base/open-database.ts';

/** In the place of each step. SQLite refuses it. */
const left = 'tables of another party, which are not in this bundle';

/** A schema as JavaScript, without its SQL. */
export const withoutTables = ({ steps, ...schema }: Schema): string =>
  `{ ...${JSON.stringify(schema)}, steps: Array(${steps.length}).fill(${JSON.stringify(left)}) }`;

export const leaveTablesOut: Plugin = {
  name: 'without-tables',
  setup(context) {
    context.onLoad({ filter: /\/src\/(headend|device)\/schema\.ts$/ }, async ({ path }) => {
      const schemas: Record<string, Schema> = await import(path);
      const lines = Object.entries(schemas).map(
        ([name, schema]) => `export const ${name} = ${withoutTables(schema)};`,
      );
      return { contents: lines.join('\n'), loader: 'js' };
    });
  },
};

import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { openApi } from '../headend/openapi.ts';

/** docs/openapi.json. */
export const apiReference = (): string => `${JSON.stringify(openApi(), null, 2)}\n`;

if (import.meta.main)
  writeFileSync(fileURLToPath(new URL('../../docs/openapi.json', import.meta.url)), apiReference());

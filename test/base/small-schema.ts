import type { Schema } from '../../src/base/open-database.ts';

const steps = [
  'CREATE TABLE thing (name TEXT PRIMARY KEY) STRICT;',
  'ALTER TABLE thing ADD COLUMN size INTEGER NOT NULL DEFAULT 0;',
  '',
  'CREATE TABLE other (name TEXT PRIMARY KEY) STRICT;',
];

/** Schema of a program that knows as many versions. */
export const smallSchema = (versions: number): Schema => ({
  party: 'thing',
  applicationId: 0x54686e67,
  steps: steps.slice(0, versions),
});

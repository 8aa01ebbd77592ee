import type { Schema } from '../base/open-database.ts';
import { setAsideTable } from '../base/rows.ts';
import { nodeTables } from '../dm/stored-nodes.ts';
import { senderTable } from '../wire/secure/oscore/stored-senders.ts';

/** The tables of an End Device. The empty steps keep the version numbers equal to those in files of Postern 0.1.0. */
export const deviceSchema: Schema = {
  party: 'device',
  applicationId: 0x50734544,
  steps: [
    nodeTables[0],
    `${nodeTables[1]}
     CREATE TABLE applied_bootstrap (number INTEGER PRIMARY KEY AUTOINCREMENT, digest TEXT NOT NULL UNIQUE) STRICT;`,
    '',
    '',
    '',
    setAsideTable,
    senderTable,
  ],
};

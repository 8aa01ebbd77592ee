import type { Schema } from '../../base/open-database.ts';
import { setAsideTable } from '../../base/rows.ts';
import { nodeTables } from '../../dm/stored-nodes.ts';
import { senderTable } from '../../wire/secure/oscore/stored-senders.ts';

/** The tables in the state file of a gateway. */
export const gatewaySchema: Schema = {
  party: 'gateway',
  applicationId: 0x50734757,
  steps: [
    `${nodeTables[0]}
     CREATE TABLE credential (
       device_id TEXT PRIMARY KEY, client_name TEXT NOT NULL, client_secret TEXT NOT NULL, client_nonce BLOB NOT NULL,
       server_secret TEXT NOT NULL, server_nonce BLOB NOT NULL, origin TEXT NOT NULL, attached INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE device (
       device_id TEXT PRIMARY KEY, state TEXT NOT NULL, mode INTEGER NOT NULL, origin TEXT NOT NULL,
       address TEXT NOT NULL, last_seen INTEGER NOT NULL, manufacturer TEXT, model TEXT, firmware TEXT
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE outbox (sequence INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, device_id TEXT NOT NULL, body TEXT NOT NULL) STRICT;`,
    `${nodeTables[1]}
     CREATE TABLE fanout (name TEXT PRIMARY KEY, state INTEGER NOT NULL, correlator TEXT) STRICT, WITHOUT ROWID;
     CREATE TABLE fanout_target (
       name TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, outcome TEXT, PRIMARY KEY (name, device)
     ) STRICT, WITHOUT ROWID;`,
    `DROP TABLE fanout;
     DROP TABLE fanout_target;
     CREATE TABLE campaign (
       kind TEXT NOT NULL, name TEXT NOT NULL, state INTEGER NOT NULL, server TEXT NOT NULL, correlator TEXT,
       PRIMARY KEY (kind, name)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE campaign_target (
       kind TEXT NOT NULL, name TEXT NOT NULL, device TEXT NOT NULL, state TEXT NOT NULL, status INTEGER, outcome TEXT,
       PRIMARY KEY (kind, name, device)
     ) STRICT, WITHOUT ROWID;
     ALTER TABLE outbox ADD COLUMN server TEXT;
     CREATE INDEX outbox_subject ON outbox (kind, device_id);
     ALTER TABLE device ADD COLUMN protocol TEXT NOT NULL DEFAULT 'OMA-DM';
     ALTER TABLE device ADD COLUMN component_type INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE device ADD COLUMN via TEXT;
     ALTER TABLE device ADD COLUMN device_type TEXT;
     CREATE TABLE image (
       name TEXT PRIMARY KEY, state INTEGER NOT NULL, size INTEGER, hash TEXT, validator TEXT, inline INTEGER NOT NULL,
       used INTEGER NOT NULL, server TEXT, correlator TEXT, result INTEGER
     ) STRICT, WITHOUT ROWID;`,
    `ALTER TABLE device ADD COLUMN objects TEXT;
     CREATE TABLE registration (device_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
    'CREATE TABLE gateway_update (number INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;',
    `CREATE TABLE undeliverable (
       number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, device_id TEXT NOT NULL, body TEXT NOT NULL, server TEXT,
       reason TEXT NOT NULL
     ) STRICT;`,
    'CREATE TABLE traffic (number INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;',
    // The epoch of the outbox entries whose numbers begin at first. Entries of version 0.1.0 have none.
    'CREATE TABLE epoch (first INTEGER PRIMARY KEY, value TEXT NOT NULL, starts INTEGER NOT NULL) STRICT;',
    'CREATE TABLE device_presence (device_id TEXT PRIMARY KEY, reason TEXT, heard_on TEXT, serial TEXT) STRICT, WITHOUT ROWID;',
    'CREATE TABLE image_operation (name TEXT PRIMARY KEY, total INTEGER, reason TEXT) STRICT, WITHOUT ROWID;',
    setAsideTable,
    `CREATE TABLE dtls_association (
       identity TEXT PRIMARY KEY, run INTEGER NOT NULL, clean INTEGER NOT NULL, body TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE dtls_run (number INTEGER NOT NULL) STRICT;
     INSERT INTO dtls_run VALUES (0);`,
    // The child gateways that entries of the outbox came from. In a table of its own: 0.1.0 opens the one of the outbox.
    `CREATE TABLE outbox_child (sequence INTEGER PRIMARY KEY, child TEXT NOT NULL, bytes INTEGER NOT NULL) STRICT;
     CREATE INDEX outbox_share ON outbox_child (child, bytes);
     CREATE TRIGGER outbox_gone AFTER DELETE ON outbox BEGIN
       DELETE FROM outbox_child WHERE sequence = old.sequence;
     END;`,
    senderTable,
    `CREATE TABLE device_key (
       identity TEXT PRIMARY KEY, device_id TEXT NOT NULL, serial INTEGER NOT NULL, secret TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;`,
    `CREATE TABLE pinned_key (
       device_id TEXT PRIMARY KEY, mark TEXT NOT NULL UNIQUE, protocol TEXT NOT NULL, joined INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;`,
    'CREATE TABLE proven_client (device_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;',
    // An identity may have several associations. Those that are there get their names when they are read.
    `CREATE TABLE dtls_named (
       identity TEXT NOT NULL, name TEXT NOT NULL, run INTEGER NOT NULL, clean INTEGER NOT NULL, body TEXT NOT NULL,
       PRIMARY KEY (identity, name)
     ) STRICT, WITHOUT ROWID;
     INSERT INTO dtls_named SELECT identity, '', run, clean, body FROM dtls_association;
     DROP TABLE dtls_association;
     ALTER TABLE dtls_named RENAME TO dtls_association;`,
    `CREATE TABLE observation (
       name TEXT PRIMARY KEY, state INTEGER NOT NULL, rest INTEGER NOT NULL, body TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE telemetry_report (
       number INTEGER PRIMARY KEY AUTOINCREMENT, server TEXT NOT NULL, counted INTEGER NOT NULL, dropped INTEGER NOT NULL,
       body BLOB NOT NULL
     ) STRICT;`,
    `CREATE TABLE client_update (device_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE client_setting (
       number INTEGER PRIMARY KEY AUTOINCREMENT, device_id TEXT NOT NULL, leaf TEXT NOT NULL, value TEXT NOT NULL,
       UNIQUE (device_id, leaf)
     ) STRICT;`,
  ],
};

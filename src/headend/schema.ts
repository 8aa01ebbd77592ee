import type { Schema } from '../base/open-database.ts';
import { setAsideTable } from '../base/rows.ts';

/**
 * The tables of a head-end. The empty steps keep the schema's version number equal to the one in state files that
 * Postern 0.1.0 made.
 */
export const headendSchema: Schema = {
  party: 'head-end',
  applicationId: 0x50734845,
  steps: [
    `CREATE TABLE party (
       id TEXT PRIMARY KEY, client_nonce BLOB NOT NULL, server_nonce BLOB NOT NULL, gateway TEXT, alert_sequence INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;`,
    'CREATE TABLE pending_detach (gateway TEXT NOT NULL, device TEXT NOT NULL, PRIMARY KEY (gateway, device)) STRICT, WITHOUT ROWID;',
    `CREATE TABLE received_alert (
       number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL, gateway TEXT NOT NULL, device TEXT,
       body TEXT NOT NULL
     ) STRICT;
     CREATE TABLE operation_result (
       number INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL, gateway TEXT NOT NULL,
       name TEXT NOT NULL, correlator TEXT, result TEXT NOT NULL, UNIQUE (kind, gateway, name)
     ) STRICT;
     CREATE TABLE assignment (device TEXT PRIMARY KEY, gateway TEXT NOT NULL) STRICT, WITHOUT ROWID;`,
    '',
    '',
    // Numbers of alerts without an epoch, as gateways of version 0.1.0 send them, stay in the table party.
    `CREATE TABLE alert_epoch (
       number INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, epoch TEXT NOT NULL, sequence INTEGER NOT NULL,
       UNIQUE (gateway, epoch)
     ) STRICT;`,
    'CREATE TABLE unreachable (device TEXT PRIMARY KEY, reason TEXT NOT NULL, last_heard INTEGER NOT NULL) STRICT, WITHOUT ROWID;',
    setAsideTable,
    // The run of the gateway in which the last number was given.
    'ALTER TABLE alert_epoch ADD COLUMN run TEXT;',
    // Results of orders that an earlier version gave stay in operation_result alone.
    `CREATE TABLE accepted_order (
       number INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, party TEXT NOT NULL, name TEXT NOT NULL,
       correlator TEXT NOT NULL, state TEXT NOT NULL, accepted INTEGER NOT NULL, due INTEGER, ended INTEGER, status INTEGER,
       reason TEXT, operations TEXT, UNIQUE (kind, party, name)
     ) STRICT;
     CREATE INDEX order_correlator ON accepted_order (correlator);
     CREATE TABLE triggered_session (
       number INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, name TEXT NOT NULL, device TEXT NOT NULL,
       status INTEGER NOT NULL, operations TEXT NOT NULL, UNIQUE (gateway, name, device)
     ) STRICT;`,
    `CREATE TABLE enrolment (
       number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, gateway TEXT NOT NULL, serial TEXT, claim TEXT NOT NULL,
       state TEXT NOT NULL, by TEXT, reason TEXT, asked INTEGER NOT NULL, decided INTEGER, expires INTEGER, renew_at INTEGER,
       public_key BLOB NOT NULL, chain TEXT, secrets BLOB
     ) STRICT;
     CREATE INDEX enrolment_gateway ON enrolment (gateway, state);
     CREATE INDEX enrolment_renewal ON enrolment (renew_at);
     CREATE TABLE enrolment_code (
       hash TEXT PRIMARY KEY, gateway TEXT, expires INTEGER NOT NULL, used_by TEXT
     ) STRICT, WITHOUT ROWID;`,
    `CREATE TABLE replacement (gateway TEXT PRIMARY KEY, serial TEXT, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE handover (gateway TEXT NOT NULL, device TEXT NOT NULL, PRIMARY KEY (gateway, device)) STRICT, WITHOUT ROWID;`,
    `CREATE TABLE departure (
       number INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, key TEXT NOT NULL, kind TEXT NOT NULL,
       state TEXT NOT NULL, by TEXT NOT NULL, reason TEXT, next BLOB, ordered INTEGER NOT NULL, ended INTEGER
     ) STRICT;
     CREATE INDEX departure_gateway ON departure (gateway, state);`,
    // Who sent an alert, where its gateway does not say it. In a table of its own: 0.1.0 opens the one of the alerts.
    `CREATE TABLE alert_sender (number INTEGER PRIMARY KEY, sender TEXT NOT NULL) STRICT;
     CREATE TRIGGER alert_gone AFTER DELETE ON received_alert BEGIN
       DELETE FROM alert_sender WHERE number = old.number;
     END;
     CREATE TABLE gateway_problem (
       number INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL UNIQUE, sender TEXT NOT NULL, reason TEXT NOT NULL
     ) STRICT;`,
    // Broker gateways through which child gateways have proved themselves.
    'CREATE TABLE proved_way (gateway TEXT PRIMARY KEY, way TEXT NOT NULL) STRICT, WITHOUT ROWID;',
    `CREATE TABLE latest_value (
       number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, path TEXT NOT NULL, at INTEGER NOT NULL,
       received INTEGER NOT NULL, gateway TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (device, path)
     ) STRICT;
     CREATE INDEX latest_of_gateway ON latest_value (gateway, received);
     CREATE TABLE value_history (
       number INTEGER PRIMARY KEY AUTOINCREMENT, device TEXT NOT NULL, path TEXT NOT NULL, at INTEGER NOT NULL,
       received INTEGER NOT NULL, gateway TEXT NOT NULL, type TEXT NOT NULL, value TEXT NOT NULL
     ) STRICT;
     CREATE INDEX history_of_path ON value_history (device, path);
     CREATE INDEX history_of_gateway ON value_history (gateway, received);
     CREATE TABLE ordered_observation (
       number INTEGER PRIMARY KEY AUTOINCREMENT, gateway TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL,
       ordered INTEGER NOT NULL, UNIQUE (gateway, name)
     ) STRICT;`,
  ],
};

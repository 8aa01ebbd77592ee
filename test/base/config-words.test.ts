import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parse as parseToml } from 'smol-toml';
import * as v from 'valibot';
import { checkConfig } from '../../src/base/config.ts';
import { complaintOf } from '../../src/base/config-words.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';

const both = { 'client-secret': 'long enough', 'server-secret': 'long enough' };
const parties = {
  gateway: {
    schema: gatewayConfigSchema,
    base: { gateway: { id: 'gw-1' }, mqtt: { url: 'mqtts://b' }, 'dm-server': { id: 'dm', ...both } },
  },
  headend: {
    schema: headendConfigSchema,
    base: { headend: { id: 'dm' }, mqtt: { url: 'mqtts://b' } },
  },
  device: { schema: deviceConfigSchema, base: { device: { id: 'urn:dev:1' } } },
} as const;

/** The complaint about a configuration in which these tables take the place of good ones. */
function complaint(party: keyof typeof parties, tables: Record<string, unknown>): string {
  const { schema, base } = parties[party];
  try {
    checkConfig(schema, { ...base, ...tables }, 'F');
    return 'none';
  } catch (thrown) {
    return (thrown as Error).message;
  }
}

const twice = [
  { id: 'a', ...both },
  { id: 'a', ...both },
];
const cases: readonly (readonly [keyof typeof parties, Record<string, unknown>, string])[] = [
  ['gateway', { coap: { prot: 5 } }, 'F: coap.prot: unknown key; is port meant?'],
  [
    'device',
    { device: { id: 'urn:dev:ops 1' } },
    'F: device.id: expected a device ID (DevId) of 1 to 200 bytes of UTF-8, without spaces and control characters, found "urn:dev:ops 1"',
  ],
  [
    'gateway',
    { tunnel: { devices: ['*', 'urn:*', 'urn:dev:1', 'urn:*:1'] } },
    'F: tunnel.devices[3]: expected a name, or the beginning of names followed by *, of 1 to 255 characters, found "urn:*:1"',
  ],
  [
    'gateway',
    { tunnel: { devices: [''] } },
    'F: tunnel.devices[0]: expected a name, or the beginning of names followed by *, of 1 to 255 characters, found ""',
  ],
  [
    'headend',
    { api: { hosts: ['dm.example', 'DM.example', '192.0.2.1', '[2001:db8::1]', 'dm.example:8443'] } },
    'F: api.hosts[4]: expected a host name or address without scheme and port, such as dm.example or [2001:db8::1], found "dm.example:8443"',
  ],
  [
    'headend',
    { api: { hosts: ['https://dm.example'] } },
    'F: api.hosts[0]: expected a host name or address without scheme and port, such as dm.example or [2001:db8::1], found "https://dm.example"',
  ],
  ['gateway', { log: { colour: 1 } }, 'F: log.colour: unknown key; known are level'],
  ['gateway', { mqtt: [{ url: 'mqtt://b' }] }, 'F: mqtt: expected one table, [mqtt], found a list, [[mqtt]]'],
  [
    'headend',
    { gateway: { id: 'gw-1' } },
    'F: gateway: expected a list of tables, [[gateway]], found a table',
  ],
  ['headend', { mqtt: undefined }, 'F: mqtt: the table [mqtt] is missing'],
  [
    'gateway',
    { parent: { id: 'p', 'factory-secret': 'long enough' } },
    'F: parent.uri: this key is missing; expected a URI with an IP address, such as coaps://192.0.2.1:5684',
  ],
  [
    'gateway',
    { coap: { port: 'x' } },
    'F: coap.port: expected a whole number from 0 to 65535, found "x", a text; for example: port = 5683',
  ],
  [
    'gateway',
    { coap: { port: '5683' } },
    'F: coap.port: expected a whole number from 0 to 65535, found "5683", a text; write it without quotes: port = 5683',
  ],
  [
    'gateway',
    { coap: { port: {} } },
    'F: coap.port: expected a whole number from 0 to 65535, found a table; for example: port = 5683',
  ],
  ['gateway', { coap: { port: 1.5 } }, 'F: coap.port: expected a whole number from 0 to 65535, found 1.5'],
  [
    'gateway',
    { coap: { 'insecure-plain-coap': 'true' } },
    'F: coap.insecure-plain-coap: expected true or false, found "true", a text; write it without quotes: insecure-plain-coap = true',
  ],
  [
    'gateway',
    { coap: { 'insecure-plain-coap': 1 } },
    'F: coap.insecure-plain-coap: expected true or false, found 1, a number; for example: insecure-plain-coap = false',
  ],
  [
    'gateway',
    { coap: { interfaces: 'eth0' } },
    'F: coap.interfaces: expected a list, found "eth0", a text; write it in brackets: interfaces = ["eth0"]',
  ],
  [
    'gateway',
    { coap: { interfaces: [5] } },
    'F: coap.interfaces[0]: expected a text of 1 to 255 characters, found 5, a number',
  ],
  [
    'gateway',
    { gateway: { id: 5 } },
    'F: gateway.id: expected an identifier of 1 to 64 characters of A-Z a-z 0-9 . _ : - such as gw-1, found 5, a number; write it in quotes: id = "5"',
  ],
  [
    'gateway',
    { gateway: { id: ['gw-1', 'gw-2'] } },
    'F: gateway.id: expected an identifier of 1 to 64 characters of A-Z a-z 0-9 . _ : - such as gw-1, found a list; for example: id = "gw-1"',
  ],
  [
    'headend',
    { mqtt: { url: 'mqtts://b', protocol: 5 } },
    'F: mqtt.protocol: expected "auto", "3.1.1" or "5", found 5, a number; write it in quotes: protocol = "5"',
  ],
  [
    'headend',
    { mqtt: { url: true } },
    'F: mqtt.url: expected a URL such as mqtt://broker.example:1883 or mqtts://broker.example:8883, found true, a boolean; for example: url = "mqtt://broker.example:1883"',
  ],
  [
    'device',
    { log: 'info' },
    'F: log: expected a table, found "info", a text; a table begins with the line [log]',
  ],
  [
    'gateway',
    { 'dm-server': { id: 'dm', ...both, 'client-secret': 12_345_678 } },
    'F: dm-server.client-secret: expected a secret of 8 to 255 characters, found a number; write a text in quotes: client-secret = "…"',
  ],
  [
    'gateway',
    { coap: { advertise: 'host:70000' } },
    'F: coap.advertise: expected host:port, as in 192.0.2.1:5683 or [2001:db8::1]:5683, found "host:70000"',
  ],
  [
    'gateway',
    { 'dm-server': { id: 'dm', ...both, 'client-secret': 'short' } },
    'F: dm-server.client-secret: expected a secret of 8 to 255 characters, found a text of 5 characters',
  ],
  ...(
    [
      [{ coaps: { device: [{ identity: 'a', key: 'short' }] } }, 'coaps.device[0].key'],
      [{ enrolment: { username: 'a', code: 'short' } }, 'enrolment.code'],
      [{ lwm2m: { device: [{ id: 'a', 'bootstrap-key': 'short' }] } }, 'lwm2m.device[0].bootstrap-key'],
    ] as const
  ).map(
    ([tables, key]) =>
      [
        'gateway',
        tables,
        `F: ${key}: expected a secret of 8 to 255 characters, found a text of 5 characters`,
      ] as const,
  ),
  [
    'gateway',
    { gateway: { id: 'x'.repeat(200) } },
    `F: gateway.id: expected an identifier of 1 to 64 characters of A-Z a-z 0-9 . _ : - such as gw-1, found "${'x'.repeat(79)}… (200 characters)`,
  ],
  ...(['gateway', 'headend'] as const).flatMap(
    (party) =>
      [
        [
          party,
          { mqtt: { url: 'mqtts://b', cert: 'x' } },
          'F: mqtt: cert and key belong together, and key is missing; set both, or none',
        ],
        [
          party,
          { mqtt: { url: 'mqtts://b', key: 'x' } },
          'F: mqtt: cert and key belong together, and cert is missing; set both, or none',
        ],
        [
          party,
          { mqtt: { url: 'mqtt://b', ca: 'x' } },
          'F: mqtt: ca: only a URL with TLS uses it, and url has mqtt://; write mqtts:// in its place, or remove it',
        ],
        [
          party,
          { mqtt: { url: 'ws://b', cert: 'x', key: 'y' } },
          'F: mqtt: cert, key: only a URL with TLS uses them, and url has ws://; write wss:// in its place, or remove them',
        ],
        [
          party,
          { mqtt: { url: 'mqtt://b', password: 'secret' } },
          'F: mqtt: password is there without username; MQTT 3.1.1 needs both',
        ],
      ] as const,
  ),
  [
    'gateway',
    { http: { 'tls-key': 'x' } },
    'F: http: tls-cert and tls-key belong together, and tls-cert is missing; set both, or none',
  ],
  [
    'gateway',
    { http: { host: '0.0.0.0' } },
    'F: http: host is not loopback; it needs tls-cert and tls-key, or insecure-plain-http = true',
  ],
  [
    'gateway',
    { http: { path: '/dm/bs' } },
    'F: http: path, bootstrap-path and tunnel-path must differ from each other',
  ],
  [
    'gateway',
    { http: { device: twice } },
    'F: http.device: the id "a" is there twice; each id may be there once',
  ],
  [
    'gateway',
    { bootstrap: { device: twice.map(({ id }) => ({ id, 'factory-secret': 'long enough' })) } },
    'F: bootstrap.device: the id "a" is there twice; each id may be there once',
  ],
  [
    'gateway',
    { lwm2m: { device: [{ id: 'a' }, { id: 'a' }] } },
    'F: lwm2m.device: the id "a" is there twice; each id may be there once',
  ],
  [
    'gateway',
    { mqtt: undefined },
    'F: one of the tables [mqtt] and [parent] is needed, and not both: a gateway reports to a broker or to a gateway above it',
  ],
  ['headend', { device: twice }, 'F: device: the id "a" is there twice; each id may be there once'],
  [
    'headend',
    { device: [twice[0]], gateway: [twice[1]] },
    'F: "a" is both in [[gateway]] and in [[device]]; list it in one of them',
  ],
  [
    'headend',
    { api: { 'tls-cert': 'x' } },
    'F: api: tls-cert and tls-key belong together, and tls-key is missing; set both, or none',
  ],
  [
    'device',
    { lwm2m: {}, 'dm-server': { id: 'dm', ...both } },
    'F: the tables [lwm2m] and [dm-server] exclude each other: an LwM2M client has no account for a DM server',
  ],
  [
    'device',
    { lwm2m: {}, device: { id: 'urn:dev:1', pin: '1234' } },
    'F: device.pin is for OMA DM; an LwM2M client (table [lwm2m]) does not use it',
  ],
  [
    'device',
    { gwmo: { modes: [0, 1, 1] } },
    'F: gwmo.modes: two codes are the same; each of the 3 must differ from the others',
  ],
  [
    'device',
    { gwmo: { alerts: { DeviceAttach: '' } } },
    'F: gwmo.alerts.DeviceAttach: expected an identifier of 1 to 255 characters such as urn:oma:mo:oma-gwmo-fanout:1.0, found ""',
  ],
];

describe('a complaint about a configuration says what is wrong, what is allowed, and what was found', () => {
  for (const [party, tables, said] of cases)
    test(`${party}: ${JSON.stringify(tables).slice(0, 80)}`, () => {
      assert.equal(complaint(party, tables), said);
    });

  test('what belongs together is accepted', () => {
    const tls = { url: 'mqtts://b', ca: 'a', cert: 'x', key: 'y', username: 'u', password: 'p' };
    assert.equal(complaint('gateway', { mqtt: tls }), 'none');
    assert.equal(complaint('headend', { mqtt: { ...tls, url: 'wss://b' } }), 'none');
    assert.equal(complaint('device', { lwm2m: {} }), 'none');
  });
});

test('alternatives are a list, without the brackets and strokes of valibot', () => {
  const schema = v.strictObject({ a: v.union([v.literal('x'), v.picklist(['y', 'z'])]) });
  const { issues = [] } = v.safeParse(schema, { a: 'n' });
  assert.equal(complaintOf(schema, issues[0]!, 'F'), 'a: expected one of "x", "y", "z", found "n"');
});

test('an example that a complaint gives is one that the key takes', () => {
  const wrongs: unknown[] = [true, 1, 'text', { a: 1 }, [[]], new Date(0)];
  let examples = 0;
  for (const { schema, base } of Object.values(parties))
    for (const [table, value] of Object.entries(schemaOf(schema).entries ?? {}))
      for (const [key, leaf] of Object.entries(schemaOf(value).entries ?? {}))
        for (const wrong of wrongs) {
          const given: Record<string, object> = { ...base };
          const { issues } = v.safeParse(schema, { ...given, [table]: { ...given[table], [key]: wrong } });
          const issue = issues?.find(({ path }) => path?.length === 2 && path[1]?.key === key);
          const said = issue && complaintOf(schema, issue, 'F');
          const example = said && /: ([\w-]+ = .*)$/.exec(said)?.[1];
          if (!example || example.includes('…')) continue;
          examples++;
          const { success } = v.safeParse(leaf as v.GenericSchema, parseToml(example)[key]);
          assert.ok(success, said);
        }
  assert.ok(examples > 100, `${examples} examples`);
});

/** The table inside `optional` and pipes. */
function schemaOf(schema: unknown): { readonly entries?: Readonly<Record<string, unknown>> } {
  const { wrapped, ...rest } = schema as { readonly wrapped?: unknown };
  return wrapped ? schemaOf(wrapped) : rest;
}

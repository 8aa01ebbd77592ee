import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { seededEntropy } from '../../src/base/entropy.ts';
import { openDatabase } from '../../src/base/open-database.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';
import { Parties } from '../../src/headend/parties.ts';
import { headendSchema } from '../../src/headend/schema.ts';
import { Sessions } from '../../src/headend/sessions.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import type { SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { EnvelopeKind } from '../../src/wire/tunnel/envelope.ts';
import { costlyWork } from '../costly-work.ts';
import { statusesOf } from '../dm/parties.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const secrets = { 'client-secret': 'client-secret', 'server-secret': 'server-secret' };
const known = 'urn:dev:1';
const stranger = 'urn:dev:2';
const wrong = 'AAAAAAAAAAAAAAAAAAAAAA==';

/** A server that has had a session with the device that it knows. */
function rig() {
  const config = checkConfig(
    headendConfigSchema,
    {
      headend: { id: 'dm.example', state: ':memory:' },
      mqtt: { url: 'mqtt://127.0.0.1:1' },
      gateway: [{ id: 'gw-1', ...secrets }],
      device: [{ id: known, ...secrets }],
    },
    'test',
  );
  const parties = new Parties(config, openDatabase(':memory:', headendSchema));
  parties.nonceKeeper(known)({ own: Buffer.alloc(16, 7), peer: Buffer.alloc(16, 8) });
  const sessions = new Sessions({
    ...{ serverId: 'dm.example', parties, clock: new HandClock(), events: new EventRecorder() },
    entropy: seededEntropy(3),
    work: async function* () {},
    proved: () => {},
    handleAlert: () => 200,
    demandWay: () => {},
  });
  /** Size and statuses of the answer, or the code of the error. */
  const send = async (device: string, message: SyncmlMessage): Promise<unknown> => {
    const envelope = {
      ...{ kind: EnvelopeKind.Request, correlation: Buffer.alloc(8), server: 'dm.example', device },
      ...{ contentType: MediaType.Xml, body: encodeMessage(message, MediaType.Xml), peer: '192.0.2.7|5683' },
    };
    return await sessions.receive({ gateway: 'gw-1', envelope }).then(
      ({ body }) => [body!.length, statusesOf(decodeMessage(body!, MediaType.Xml))],
      ({ code }) => code,
    );
  };
  return { send };
}

const claim = (source: string, sessionId: string, msgId: number, cred?: string): SyncmlMessage => ({
  header: {
    ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId, msgId },
    ...{ target: { locUri: 'dm.example' }, source: { locUri: source } },
    ...(cred !== undefined && { cred: { meta: { format: 'b64', type: 'syncml:auth-md5' }, data: cred } }),
  },
  commands: [],
  final: true,
});

test('packages of a device without an account get the same answers, by the same work, as those of one that has had sessions', async () => {
  const { send } = rig();
  const told: unknown[] = [];
  for (const device of [known, stranger]) {
    const all: unknown[] = [];
    const ask = async (sessionId: string, msgId: number, cred?: string) =>
      all.push(await costlyWork(() => send(device, claim(device, sessionId, msgId, cred))));
    await ask('1', 1);
    // First messages with a wrong proof, each of a session of its own: a challenge for each, and nobody has to wait.
    for (let number = 2; number < 12; number++) await ask(String(number), 1, wrong);
    // Wrong answers to challenges, until the device has to wait.
    for (let times = 0; times < 8; times++) await ask('20', 2, wrong);
    await ask('21', 1);
    told.push(all);
  }
  assert.deepEqual(told[1], told[0]);
  const text = JSON.stringify(told);
  assert.ok(
    text.includes('createHmac') && text.includes('lockedOut'),
    'work was counted, and both had to wait',
  );
});

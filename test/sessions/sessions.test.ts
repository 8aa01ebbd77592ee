import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { playDmClient } from './dm-clients.ts';
import { playDmServer } from './dm-servers.ts';
import { playLwm2mClient } from './lwm2m-clients.ts';
import { type Play, playAll } from './play.ts';

/** Seed of the first session of each test. `npm run sessions -- --seed N --count 1 --trace` shows the session of a seed. */
const first = 1;

async function agree(play: Play, count: number): Promise<ReadonlyMap<string, number>> {
  const wrong: string[] = [];
  const ends = await playAll(play, first, count, (seed, { what }) => wrong.push(`seed ${seed}: ${what}`));
  assert.deepEqual(wrong, []);
  return ends;
}

test('stock OMA DM clients and the server agree on what was done, whatever the habits of the client', async () => {
  const ends = await agree(playDmClient, 100);
  assert.ok((ends.get('done') ?? 0) > 70, JSON.stringify([...ends]));
});

test('stock OMA DM servers and the client agree on statuses and values, whatever the habits of the server', async () => {
  const ends = await agree(playDmServer, 100);
  assert.ok((ends.get('done') ?? 0) > 75, JSON.stringify([...ends]));
});

test('stock LwM2M clients and the gateway agree on values and updates, whatever the habits of the client', async () => {
  const ends = await agree(playLwm2mClient, 80);
  assert.ok((ends.get('done') ?? 0) > 75, JSON.stringify([...ends]));
});

/** A client with no other habit than the one under test. */
const plain = {
  version: { dtd: '1.2', protocol: 'DM/1.2' },
  maxMsgSize: 5000,
  maxObjSize: undefined,
  wrongAlert: undefined,
  largeObjects: 'true',
  scheme: 'md5',
  forgotNonce: false,
  abortsAfter: Number.POSITIVE_INFINITY,
};
const writing = {
  coding: 'wbxml',
  namespaces: 'default',
  declaration: true,
  documentType: '',
  indents: false,
  sections: false,
  shuffles: false,
  version: 3,
  publicId: 'number',
  strings: 'inline',
};

describe('habits of OMA DM clients', () => {
  for (const [name, habits] of Object.entries({
    'the Meta of Results stands at the command': { metaAt: 'command', itemsTogether: false },
    'Results do not say to which message they belong': { msgRefInResults: false, maxMsgSize: 1200 },
    'each Data is opaque in WBXML, that of credentials and codes as well': {
      writing: { ...writing, strings: 'opaque' },
    },
    'base64 is cut anywhere, as opaque data of WBXML': {
      writing: { ...writing, strings: 'opaque' },
      chunk: 5,
      metaInEachChunk: true,
    },
    'its statuses wait while the server sends a package in small messages': {
      maxMsgSize: 1300,
      answersLate: true,
    },
    'it answers in chunks whether it takes chunks': { largeObjects: 'false', chunk: 4, maxMsgSize: 1300 },
    'it takes no chunks, and its first answer is full of statuses': {
      largeObjects: 'false',
      maxMsgSize: 1900,
      forgotNonce: true,
      asksServer: true,
    },
    'a challenge just fits its messages': { maxMsgSize: 1080, forgotNonce: true, asksServer: true },
  }))
    test(name, async () => {
      const ends = await agree((seed) => playDmClient(seed, undefined, { ...plain, ...habits }), 10);
      assert.deepEqual([...ends.keys()], ['done']);
    });
});

test('a client that takes no chunks gets none where a value just fits, and the first message is full of other things', async () => {
  const habits = {
    ...plain,
    largeObjects: 'false',
    asksServer: true,
    references: true,
    shows: 'until-accepted',
  };
  const { forgotNonce: _, ...given } = habits;
  // Sessions in which a value went in chunks while the server did not ask first.
  for (const [seed, maxMsgSize] of [
    [121, 1777],
    [395, 2115],
    [663, 2231],
    [1041, 2217],
  ] as const) {
    const { end, disagreements } = await playDmClient(seed, undefined, { ...given, maxMsgSize });
    assert.deepEqual([end, disagreements.map(({ what }) => what)], ['done', []], `seed ${seed}`);
  }
});

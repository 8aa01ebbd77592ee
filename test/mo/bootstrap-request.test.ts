import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../src/base/entropy.ts';
import { type BootstrapAnswer, requestBootstrap } from '../../src/mo/bootstrap-request.ts';
import { Option } from '../../src/wire/coap/options.ts';
import { decodeProof, isProof } from '../../src/wire/syncml/bootstrap-proof.ts';

const id = 'urn:dev:1';
const secret = 'factory-secret';
const [old, fresh] = [Buffer.alloc(18, 1), Buffer.alloc(18, 2)];

/** A server for which one challenge is good. `posts` are the challenges that were answered; undefined where there was no proof. */
function server(good: Buffer | undefined) {
  const posts: (string | undefined)[] = [];
  const answer = (description: string, echo?: Buffer): BootstrapAnswer => ({
    isSuccess: description === '2.04',
    description,
    contentFormat: undefined,
    payload: Buffer.alloc(0),
    option: (number) => (number === Option.Echo.number ? echo : undefined),
  });
  const post = async (options: Readonly<Record<number, Uint8Array>>, payload?: Uint8Array) => {
    const echo = options[Option.Echo.number];
    posts.push(echo && Buffer.from(echo).toString('hex').slice(0, 2));
    if (!echo || !payload) return answer('4.01', good);
    assert.ok(isProof(decodeProof(payload), secret, echo, id));
    if (!good) return answer('4.03');
    return Buffer.compare(echo, good) === 0 ? answer('2.04') : answer('4.01', good);
  };
  return { posts, post };
}

test('a challenge that came with the link saves an exchange; an old one costs none more than without it', async () => {
  const cases: [Buffer | undefined, (string | undefined)[]][] = [
    [fresh, ['02']],
    [old, ['01', '02']],
    [undefined, [undefined, '02']],
  ];
  for (const [offered, expected] of cases) {
    const { posts, post } = server(fresh);
    await requestBootstrap(id, secret, seededEntropy(1), post, offered);
    assert.deepEqual(posts, expected);
  }
});

test('a device that is refused does not go on, and a server that gives challenges for ever gets two proofs at most', async () => {
  const refusing = server(undefined);
  const ask = (post: typeof refusing.post) => requestBootstrap(id, secret, seededEntropy(1), post, old);
  await assert.rejects(ask(refusing.post), { code: 'unauthorized' });
  assert.deepEqual(refusing.posts, ['01']);
  const lying = server(fresh);
  await assert.rejects(
    ask(async (options, payload) => ({ ...(await lying.post(options, payload)), isSuccess: false })),
    { code: 'unauthorized' },
  );
  assert.deepEqual(lying.posts, ['01', '02']);
});

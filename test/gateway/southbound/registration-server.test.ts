import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { asPosternError, PosternError } from '../../../src/base/errors.ts';
import { openDatabase } from '../../../src/base/open-database.ts';
import { Sealing } from '../../../src/base/sealing.ts';
import type { AttachedDevice } from '../../../src/gateway/southbound/associations.ts';
import { LwM2mBootstrapServer } from '../../../src/gateway/southbound/lwm2m-bootstrap-server.ts';
import { LwM2mCalls } from '../../../src/gateway/southbound/lwm2m-calls.ts';
import { lifetimeOf } from '../../../src/gateway/southbound/presence.ts';
import { RegistrationServer } from '../../../src/gateway/southbound/registration-server.ts';
import { DeviceKeys } from '../../../src/gateway/store/device-keys.ts';
import { Registrations } from '../../../src/gateway/store/registrations.ts';
import { gatewaySchema } from '../../../src/gateway/store/schema.ts';
import type { CoapAnswer, CoapCall } from '../../../src/wire/coap/blockwise-client.ts';
import { Code, codeFromText, codeText } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { CoapRequest, type Reply } from '../../../src/wire/coap/message.ts';
import { Option, text, textOptions, uint } from '../../../src/wire/coap/options.ts';
import { Router } from '../../../src/wire/coap/router.ts';
import { decodeContent, encodeContent } from '../../../src/wire/lwm2m/content.ts';
import { pathText } from '../../../src/wire/lwm2m/path.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf, turn } from '../../wire/coap/wire.ts';

type Answer = (request: CoapCall) => Partial<CoapAnswer> | PosternError;

const device = encodeContent(
  ContentFormat.LwM2mTlv,
  [
    { path: [3, 0, 0], value: 'Maker' },
    { path: [3, 0, 3], value: '7' },
  ],
  [3, 0],
);
const tlv = [uint(Option.ContentFormat, ContentFormat.LwM2mTlv)];
const described: Answer = () => ({ code: Code.Content, options: tlv, payload: device });

/**
 * @param refuse throws when an attachment is refused
 * @param network what the way to a client at this port takes; rejects when it loses the question
 */
function rig(
  answer: Answer,
  limit = 10,
  refuse: () => void = () => {},
  network: (port: number) => Promise<void> = async () => {},
) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const attached = new Map<string, AttachedDevice>();
  const left: string[] = [];
  const heard: string[] = [];
  const calls: [string, CoapCall][] = [];
  const elsewhere = new Set<string>();
  const strangers = new Set(['stranger']);
  const keyed = new Set<string>();
  const registrations = new Registrations(openDatabase(':memory:', gatewaySchema), limit);
  const call = async (address: string, port: number, request: CoapCall): Promise<CoapAnswer> => {
    calls.push([`${address} ${port}`, request]);
    await network(port);
    const given = answer(request);
    if (given instanceof PosternError) throw given;
    return { code: Code.Content, options: [], payload: new Uint8Array(), ...given };
  };
  const server = new RegistrationServer({
    registrations,
    calls: new LwM2mCalls(call),
    isAllowed: (id, { identity }) => !strangers.has(id) && (identity !== undefined || !keyed.has(id)),
    isJoined: () => false,
    isServed: (id) => !strangers.has(id),
    isAttached: (id) => attached.has(id),
    deviceAt: ({ address }) => [...attached.keys()].find((id) => registrations.get(id)?.address === address),
    isOther: (id) => id === 'dm',
    livesElsewhere: async (id) => elsewhere.has(id),
    originOf: () => 'local',
    attached: (each) => {
      if (attached.size >= limit && !attached.has(each.deviceId)) throw new PosternError('full', 'full');
      refuse();
      attached.set(each.deviceId, each);
    },
    left: (id) => {
      attached.delete(id);
      left.push(id);
    },
    heard: (id) => heard.push(id),
    clock,
    entropy: seededEntropy(1),
    events,
  });
  const bootstrap = new LwM2mBootstrapServer({
    isAllowed: (id) => !strangers.has(id),
    isJoined: () => false,
    call,
    calls: new LwM2mCalls(call),
    lifetime: 600,
    isForOscore: () => false,
    oscoreUri: () => '',
    keys: new DeviceKeys(
      openDatabase(':memory:', gatewaySchema),
      new Sealing(new Uint8Array(32), seededEntropy(1)),
    ),
    tryDisk: () => {},
    entropy: seededEntropy(1),
    clock,
    events,
  });
  const endpoint = { vouch: () => {} };
  const local = {
    address: '192.0.2.1',
    port: 5683,
    bound: '192.0.2.1',
    scheme: 'coap' as const,
    endpoint: () => endpoint as never,
  };
  const router = new Router([...bootstrap.resources(local), ...server.resources(local)]);
  const ask = async (
    method: number,
    path: string,
    query: readonly string[] = [],
    {
      payload = '',
      port = 1,
      accept,
      identity,
    }: { payload?: string; port?: number; accept?: number; identity?: string } = {},
  ): Promise<{ code: string; location: string; reply: Reply | undefined }> => {
    const remote = {
      address: '192.0.2.7',
      port,
      key: `192.0.2.7 ${port}`,
      ...(identity !== undefined && { identity }),
    };
    const options = [
      ...path
        .slice(1)
        .split('/')
        .map((segment) => text(Option.UriPath, segment)),
      ...query.map((part) => text(Option.UriQuery, part)),
      ...(accept === undefined ? [] : [uint(Option.Accept, accept)]),
    ];
    const body = Buffer.from(payload);
    const request = new CoapRequest(
      remote,
      messageOf({ code: method, options, payload: body }),
      false,
      body,
      account(),
    );
    let answered: Reply | undefined;
    try {
      answered = await router.handle(request);
    } catch (thrown) {
      return { code: asPosternError(thrown).coapCode, location: '', reply: undefined };
    }
    const location = textOptions(answered?.options ?? [], Option.LocationPath);
    return { code: codeText(answered?.code ?? 0), location: `/${location.join('/')}`, reply: answered };
  };
  /** Lets the gateway ask the client what it is. */
  const settle = async () => {
    clock.advance(1);
    for (let i = 0; i < 8; i++) await turn();
  };
  const register = async (id: string, more: Parameters<typeof ask>[3] = {}) =>
    await ask(Code.POST, '/rd', [`ep=${id}`, 'lwm2m=1.1', 'lt=60'], { payload: '</3/0>', ...more });
  return {
    ask,
    register,
    settle,
    attached,
    left,
    heard,
    calls,
    events,
    elsewhere,
    strangers,
    keyed,
    registrations,
    server,
    bootstrap,
    clock,
  };
}

// conforms: GW-26
test("a client is attached only when it has answered the gateway's read", async () => {
  const { register, settle, attached, calls, server, bootstrap } = rig(described);
  const { code } = await register('a');
  assert.deepEqual([code, attached.size, calls.length], ['2.01', 0, 0], 'its registration is answered first');
  await settle();
  assert.deepEqual(
    calls.map(([to, { path }]) => [to, path.join('/')]),
    [['192.0.2.7 1', '3/0']],
  );
  const { mode, manufacturer, firmware, objects, address } = attached.get('a')!;
  assert.deepEqual(
    { mode, manufacturer, firmware, objects, address },
    { mode: 2, manufacturer: 'Maker', firmware: '7', objects: '/3/0', address: 'coap://192.0.2.7:1' },
  );
  await server[Symbol.asyncDispose]();
  await bootstrap[Symbol.asyncDispose]();
});

test('who sends values is the attached client at its address and port, or the holder of its key wherever it is', async () => {
  const { register, settle, attached, server, strangers, keyed } = rig(described);
  const from = (port: number, identity?: string, address = '192.0.2.7') => {
    const remote = { address, port, key: `${address} ${port}`, identity };
    return [server.senderOf(remote)?.deviceId, server.isAwaited(remote)];
  };
  assert.deepEqual(from(1), [undefined, false]);
  await register('a');
  assert.deepEqual(from(1), [undefined, true], 'it has not answered yet');
  assert.deepEqual(from(2), [undefined, false]);
  assert.deepEqual(from(9, 'a'), [undefined, true]);
  await settle();
  assert.deepEqual(from(1), ['a', false]);
  assert.deepEqual(from(2), [undefined, false], 'another port');
  assert.deepEqual(from(1, undefined, '192.0.2.8'), [undefined, false], 'another address');
  assert.deepEqual(from(2, 'a', '192.0.2.8'), ['a', false], 'its key from another address');
  assert.deepEqual(from(1, 'b'), [undefined, false], 'the key of another client from its address');
  keyed.add('a');
  assert.deepEqual(from(1), [undefined, false], 'without the key that it has got');
  strangers.add('a');
  assert.deepEqual(from(1, 'a'), [undefined, false], 'no list has it any more');
  strangers.clear();
  attached.delete('a');
  assert.deepEqual(from(1, 'a'), [undefined, false], 'it has left');
});

// conforms: GW-26
test('a client that does not answer is not attached; one that answers with an error or garbage is attached', async () => {
  const silent = rig(() => new PosternError('timeout', 'no answer'));
  const { location } = await silent.register('a');
  await silent.settle();
  assert.equal(silent.attached.size, 0);
  assert.equal(silent.events.count('registration.silent-device'), 3);
  assert.equal((await silent.ask(Code.POST, location)).code, '4.04', 'and is to register again');

  const refusing = rig(() => ({ code: codeFromText('4.01') }));
  await refusing.register('a');
  await refusing.settle();
  assert.equal(refusing.calls.length, 1);
  assert.equal(refusing.attached.get('a')?.manufacturer, undefined);
  assert.equal(refusing.attached.size, 1);

  const garbage = rig(() => ({ options: tlv, payload: Buffer.of(0xc8) }));
  await garbage.register('a');
  await garbage.settle();
  assert.equal(garbage.attached.size, 1, 'it answers, if nothing that makes sense');
});

// conforms: GW-26
test('a client whose answers are lost is asked three times: it takes itself for registered', async () => {
  for (const [lost, isAttached] of [
    [2, true],
    [3, false],
  ] as const) {
    let asked = 0;
    const rigged = rig((request) =>
      ++asked <= lost ? new PosternError('timeout', 'no answer') : described(request),
    );
    const { location } = await rigged.register('a');
    await rigged.settle();
    assert.equal(rigged.attached.has('a'), isAttached);
    assert.equal((await rigged.ask(Code.POST, location)).code, isAttached ? '2.04' : '4.04');
  }
  // Nothing could be sent: to ask at once again is of no use.
  const full = rig(() => new PosternError('full', 'no room'));
  await full.register('a');
  await full.settle();
  assert.equal(full.calls.length, 1);
});

describe('a client that cannot be stored when it answers', () => {
  /** A client that waits for the disk. */
  async function waiting() {
    let isFull = true;
    const refuse = () => {
      if (isFull) throw new PosternError('storage', 'the disk is full');
    };
    const found = rig(described, 10, refuse);
    const { location } = await found.register('a');
    await found.settle();
    assert.equal(found.attached.size, 0);
    /** Lets the next attempt come. */
    const later = async () => {
      found.clock.advance(100_000);
      await found.settle();
    };
    const mend = async () => {
      isFull = false;
      await later();
    };
    return { ...found, location, later, mend };
  }

  test('stays registered, and is attached when the disk takes it', async () => {
    const { ask, attached, events, location, later, mend, server } = await waiting();
    await later();
    assert.equal((await ask(Code.POST, location)).code, '2.04', 'it need not register again');
    await mend();
    assert.equal(attached.size, 1);
    assert.equal(events.count('registration.not-attached'), 0);
    await server[Symbol.asyncDispose]();
  });

  test('is not attached when it has left meanwhile', async () => {
    const { ask, attached, registrations, location, mend, server } = await waiting();
    assert.equal((await ask(Code.DELETE, location)).code, '2.02');
    await mend();
    assert.deepEqual([attached.size, registrations.get('a')], [0, undefined]);
    await server[Symbol.asyncDispose]();
  });

  test('is asked again where it has moved to', async () => {
    const { ask, attached, calls, location, mend, server } = await waiting();
    await ask(Code.POST, location, [], { port: 9 });
    await mend();
    assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:9');
    assert.deepEqual(
      calls.map(([to]) => to),
      ['192.0.2.7 1', '192.0.2.7 9'],
    );
    await server[Symbol.asyncDispose]();
  });

  test('does not keep the gateway from its stop', async () => {
    const { attached, server } = await waiting();
    await server[Symbol.asyncDispose]();
    assert.equal(attached.size, 0);
  });
});

// conforms: GW-26
test('an Update changes lifetime, objects and address; a deregistration detaches the client', async () => {
  const { ask, register, settle, attached, left, calls, registrations } = rig(described);
  const { location } = await register('a');
  await settle();
  assert.equal((await ask(Code.POST, location, ['lt=120'])).code, '2.04');
  assert.equal(registrations.get('a')?.lifetime, 120);
  await settle();
  assert.equal(calls.length, 1, 'a sign of life asks nothing');
  await ask(Code.POST, location, [], { payload: '</3/0>,</3303/0>' });
  await settle();
  assert.equal(attached.get('a')?.objects, '/3/0 /3303/0');
  await ask(Code.POST, location, [], { port: 9 });
  await settle();
  assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:9', 'it is asked where it is now');
  assert.equal((await ask(Code.POST, location, ['lt=x'])).code, '4.00');
  assert.equal((await ask(Code.POST, '/rd/other')).code, '4.04');
  assert.equal((await ask(Code.GET, location)).code, '4.05');
  assert.equal((await ask(Code.DELETE, location)).code, '2.02');
  assert.deepEqual(left, ['a']);
  assert.equal((await ask(Code.DELETE, location)).code, '4.04');
});

test('who knows the path of a registration neither changes nor ends it by the key of another client, or without a key that the client has', async () => {
  for (const [identity, others] of [
    ['a', [{ identity: 'b' }, {}]],
    [undefined, [{ identity: 'b' }]],
  ] as const) {
    const { ask, register, settle, left, registrations, keyed } = rig(described);
    const { location } = await register('a', identity === undefined ? {} : { identity });
    if (identity !== undefined) keyed.add(identity);
    for (const isPending of [true, false]) {
      if (!isPending) await settle();
      for (const other of others) {
        const elsewhere = { ...other, port: 9 };
        assert.equal((await ask(Code.POST, location, ['lt=100'], elsewhere)).code, '4.04');
        assert.equal((await ask(Code.DELETE, location, [], elsewhere)).code, '4.04');
      }
    }
    const { port, lifetime } = registrations.get('a')!;
    assert.deepEqual([port, lifetime, left], [1, 60, []]);
    assert.equal((await ask(Code.POST, location, ['lt=60'], { ...(identity && { identity }) })).code, '2.04');
  }
});

test('a client that is removed before it has answered is not attached', async () => {
  const { ask, register, settle, attached, registrations, strangers } = rig(described);
  const { location } = await register('a');
  strangers.add('a');
  await settle();
  assert.deepEqual([attached.size, registrations.get('a')], [0, undefined]);
  assert.equal((await ask(Code.POST, location)).code, '4.04');
});

test('a client that is no longer listed, or has got a key, does not go on with the registration that it has', async () => {
  for (const change of ['strangers', 'keyed'] as const) {
    const { ask, register, settle, registrations, [change]: set } = rig(described);
    const { location } = await register('a');
    await settle();
    set.add('a');
    assert.equal((await ask(Code.POST, location, ['lt=100'])).code, '4.04');
    assert.equal(registrations.get('a')?.lifetime, 60);
    assert.equal((await register('a')).code, '4.03');
  }
});

// conforms: GW-26
test('a client that moves during a read is read again at its new address', async () => {
  let asked = 0;
  const rigged = rig(() => {
    asked++;
    if (asked === 2) void rigged.ask(Code.POST, location, [], { port: 9 });
    return described({} as CoapCall);
  });
  const { location } = await rigged.register('a');
  await rigged.settle();
  await rigged.ask(Code.POST, location, [], { payload: '</3/0>,</3303/0>' });
  await rigged.settle();
  assert.deepEqual(
    rigged.calls.map(([to]) => to),
    ['192.0.2.7 1', '192.0.2.7 1', '192.0.2.7 9'],
  );
  assert.equal(rigged.attached.get('a')?.address, 'coap://192.0.2.7:9');
});

// conforms: GW-26
for (const silent of [false, true])
  test(`a client that registers again during a read is read again, also when the first read ${silent ? 'fails' : 'succeeds'}`, async () => {
    let asked = 0;
    const again: Promise<unknown>[] = [];
    const rigged = rig((request) => {
      asked++;
      if (asked > 1) return described(request);
      again.push(rigged.register('a'));
      return silent ? new PosternError('timeout', 'no answer') : described(request);
    });
    await rigged.register('a');
    await rigged.settle();
    await Promise.all(again);
    await rigged.settle();
    assert.equal(asked, 2);
    assert.ok(rigged.attached.has('a'));
  });

/** A rig in which only clients at these ports answer. */
function rigWithSilence(...answering: readonly number[]) {
  const questions: (() => void)[] = [];
  const rigged = rig(
    described,
    10,
    () => {},
    (port) =>
      answering.includes(port)
        ? Promise.resolve()
        : new Promise((_, reject) => {
            questions.push(() => reject(new PosternError('timeout', 'no answer')));
          }),
  );
  const giveUp = async () => {
    // Each client is asked three times.
    for (let times = 0; times < 3; times++) {
      for (const question of questions.splice(0)) question();
      await rigged.settle();
    }
  };
  return { ...rigged, giveUp };
}

// conforms: GW-26
test('a registration in the name of a client that sleeps changes nothing for it, unless its sender answers', async () => {
  const { ask, register, settle, giveUp, attached, registrations, left } = rigWithSilence(1, 5);
  const { location } = await register('a');
  await settle();
  const valid = registrations.get('a');
  const forged = await register('a', { port: 66 });
  await settle();
  assert.equal(forged.code, '2.01');
  assert.equal(registrations.get('a'), valid);
  assert.equal((await ask(Code.POST, location)).code, '2.04');
  assert.equal((await ask(Code.DELETE, forged.location)).code, '2.02', 'it takes back its own');
  assert.deepEqual([left, attached.size], [[], 1]);
  const another = await register('a', { port: 67 });
  await settle();
  await giveUp();
  assert.equal((await ask(Code.POST, another.location)).code, '4.04');
  assert.equal(registrations.get('a'), valid);

  const moved = await register('a', { port: 5 });
  await settle();
  assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:5', 'it answers');
  assert.equal((await ask(Code.POST, location)).code, '4.04');
  assert.equal((await ask(Code.POST, moved.location, [], { port: 5 })).code, '2.04');
});

// conforms: GW-26
test('registrations in a name that wait for an answer do not delay the client that answers', async () => {
  const { register, settle, giveUp, attached, registrations } = rigWithSilence(1);
  for (let at = 0; at < 20; at++) {
    await register('a', { port: 60 + at });
    await settle();
  }
  await register('a');
  for (let at = 0; at < 20; at++) await register('a', { port: 80 + at });
  await settle();
  assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:1');
  await giveUp();
  assert.equal(registrations.get('a')?.port, 1);
});

// conforms: GW-26
test('a client that answers late does not take the place of one that registered after it and is there', async () => {
  let answer = () => {};
  const { register, settle, attached, elsewhere, events } = rig(
    described,
    10,
    () => {},
    async (port) => {
      if (port === 66) await new Promise<void>((resolve) => (answer = resolve));
    },
  );
  await register('a', { port: 66 });
  await settle();
  await register('a', { port: 67 });
  await settle();
  assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:67');
  answer();
  await settle();
  assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:67', 'the earlier registration is forgotten');

  await register('b', { port: 1 });
  await register('b', { port: 66 });
  await settle();
  assert.equal(attached.get('b')?.address, 'coap://192.0.2.7:1');
  elsewhere.add('b');
  answer();
  await settle();
  assert.equal(attached.get('b')?.address, 'coap://192.0.2.7:1');
  assert.equal(events.count('registration.duplicate'), 1);
});

test('a client that answers late without a proof does not take the place of one that has proved its name and sleeps', async () => {
  let answer = () => {};
  const { register, settle, attached, registrations, events } = rig(
    described,
    10,
    () => {},
    async (port) => {
      if (port === 66) await new Promise<void>((resolve) => (answer = resolve));
    },
  );
  await register('a', { port: 1, identity: 'a' });
  await register('a', { port: 66 });
  await settle();
  // What the client did since does not matter.
  registrations.delete('a');
  answer();
  await settle();
  assert.equal(attached.get('a')?.address, 'coap://192.0.2.7:1');
  assert.equal(events.count('registration.duplicate'), 1);
});

test('a registration is refused while the disk takes no writes, and taken when it does', async () => {
  const { register, registrations } = rig(described);
  const full = () => {
    throw new PosternError('storage', 'the disk is full');
  };
  registrations.tryDisk = full;
  assert.equal((await register('a')).code, '5.03');
  Reflect.deleteProperty(registrations, 'tryDisk');
  assert.equal((await register('a')).code, '2.01');
});

// conforms: GW-26
test('a refused registration gets the code of its reason', async () => {
  const { ask, register, elsewhere, settle, attached, registrations } = rig(described, 2);
  assert.equal((await register('stranger')).code, '4.03');
  assert.equal((await register('dm')).code, '4.09', 'a device of OMA DM has this name');
  elsewhere.add('twin');
  assert.equal((await register('twin')).code, '4.09');
  assert.equal((await ask(Code.POST, '/rd', ['lwm2m=1.1'])).code, '4.00');
  assert.equal((await ask(Code.POST, '/rd', ['ep=a', 'lwm2m=9.0'])).code, '4.12');
  assert.equal((await ask(Code.POST, '/rd', ['ep=a', 'lwm2m=1.1'], { payload: '<' })).code, '4.00');
  for (const id of ['a', 'b', 'c']) {
    await register(id);
    await settle();
  }
  assert.deepEqual([...attached.keys()], ['a', 'b'], 'the inventory is full');
  assert.equal(registrations.get('c'), undefined);
});

test('a client that proves its name by its key has it, also while its former socket still answers', async () => {
  const { register, settle, elsewhere, registrations, attached } = rig(described);
  const by = (port: number) => register('twin', { identity: 'twin', port });
  assert.equal((await by(1)).code, '2.01');
  await settle();
  assert.equal(registrations.get('twin')?.port, 1);
  elsewhere.add('twin');
  for (const port of [2, 3]) {
    assert.equal((await by(port)).code, '2.01');
    await settle();
    assert.equal(registrations.get('twin')?.port, port);
  }
  // Two at once: the later one counts.
  await Promise.all([by(4), by(5)]);
  await settle();
  assert.deepEqual(
    [registrations.get('twin')?.port, attached.get('twin')?.address],
    [5, 'coap://192.0.2.7:5'],
  );
  assert.equal((await register('twin', { port: 6 })).code, '4.09', 'without the key');
});

test('each refusal is told once, with its reason', async () => {
  const { ask, register, elsewhere, events, settle, registrations } = rig(described);
  const { location } = await register('a');
  await settle();
  const reasonOf = async (request: () => Promise<unknown>) => {
    const from = events.all.length;
    await request();
    return events.all
      .slice(from)
      .map(({ name, fields }) => `${name} ${fields.device}: ${fields.reason ?? ''}`)
      .join();
  };
  const refusals: [() => Promise<unknown>, RegExp][] = [
    [() => register('stranger'), /refused stranger: a client with this endpoint name may not/],
    [() => register('dm'), /refused dm: an OMA DM device/],
    [() => ask(Code.POST, '/rd'), /refused : \?ep=/],
    [() => ask(Code.POST, '/rd', ['ep=b', 'lwm2m=9.0']), /refused b: LwM2M 9.0 is not supported/],
    [() => ask(Code.POST, '/rd', ['ep=b', 'lwm2m=1.1', 'lt=-1']), /refused b: the lifetime must be/],
    [() => ask(Code.POST, location, ['lt=x']), /refused a: the lifetime must be/],
    [() => ask(Code.POST, location, [], { payload: '<' }), /refused a: link format expected/],
  ];
  for (const [request, reason] of refusals) assert.match(await reasonOf(request), reason);
  elsewhere.add('twin');
  assert.match(await reasonOf(() => register('twin')), /^registration.duplicate twin: $/);
  registrations.tryDisk = () => {
    throw new PosternError('storage', 'the disk is full');
  };
  assert.match(await reasonOf(() => register('b')), /^registration.refused b: the disk is full$/);
});

test('version, binding and Queue Mode are kept, also over a restart; an update that changes nothing writes nothing', async () => {
  const { ask, settle, registrations, heard } = rig(described);
  const query = ['ep=a', 'lwm2m=1.2', 'lt=0', 'b=UT', 'Q'];
  const { location } = await ask(Code.POST, '/rd', query, { payload: '</3/0>' });
  await settle();
  const { version, lifetime, binding, queueMode } = registrations.get('a')!;
  assert.deepEqual([version, lifetime, binding, queueMode], ['1.2', 0, 'UT', true]);
  assert.equal(lifetimeOf(registrations.get('a')!.lifetime), Number.POSITIVE_INFINITY);
  const put = test.mock.method(registrations, 'put');
  heard.length = 0;
  assert.equal((await ask(Code.POST, location, ['b=UT', 'Q'])).code, '2.04');
  assert.equal(put.mock.callCount(), 0);
  assert.deepEqual(heard, ['a'], 'it was heard all the same');
  await ask(Code.POST, location, ['b=U']);
  assert.equal(put.mock.callCount(), 1);
  assert.deepEqual([registrations.get('a')?.binding, registrations.get('a')?.queueMode], ['U', false]);
});

test('an update from another address counts as heard at once by a key, and else when the client answers there', async () => {
  const silent = new PosternError('timeout', 'no answer');
  const { ask, register, settle, heard } = rig(() => (heard.length > 1 ? silent : described({} as CoapCall)));
  const { location } = await register('a');
  await settle();
  heard.push('all silent');
  await ask(Code.POST, location, [], { port: 8 });
  await settle();
  assert.deepEqual(heard, ['a', 'all silent']);
  await ask(Code.POST, location, [], { port: 9, identity: 'a' });
  assert.deepEqual(heard, ['a', 'all silent', 'a']);
});

test('at the bound the registration that was renewed longest ago is deleted', () => {
  const database = openDatabase(':memory:', gatewaySchema);
  const registrations = new Registrations(database, 2);
  const registration = (deviceId: string) => ({
    deviceId,
    location: `at-${deviceId}`,
    address: '192.0.2.7',
    port: 1,
    version: '1.1',
    lifetime: 60,
    queueMode: false,
    root: [],
    paths: [[3, 0]],
    formats: [],
  });
  for (const id of ['a', 'b', 'a', 'c']) registrations.put(registration(id));
  assert.equal(registrations.get('b'), undefined);
  assert.equal(registrations.at('at-b'), undefined);
  assert.equal(registrations.at('at-a')?.deviceId, 'a');
  assert.deepEqual(
    [...new Registrations(database, 2).values()].map(({ deviceId }) => deviceId),
    ['a', 'c'],
  );
});

// conforms: GW-26
test("the bootstrap server keeps the account of another bootstrap server, and writes in the client's format", async () => {
  const { ask, settle, calls, events, bootstrap } = rig(({ method, path, contentFormat }) => {
    const links = '</>;lwm2m=1.1,</0/0>,</0/1>;ssid=7,</1/0>;ssid=7';
    if (method === Code.GET) return { payload: Buffer.from(links) };
    if (method === Code.PUT && contentFormat !== ContentFormat.SenmlJson)
      return { code: Code.UnsupportedContentFormat };
    return { code: path[0] === 'bs' ? Code.Changed : Code.Deleted };
  });
  assert.equal((await ask(Code.POST, '/bs', ['ep=stranger'])).code, '4.03');
  assert.equal((await ask(Code.POST, '/bs')).code, '4.00');
  assert.equal((await ask(Code.POST, '/bs', ['ep=a', 'pct=110'])).code, '2.04');
  await settle();
  const sent = calls.map(([, { method, path, contentFormat }]) => [
    codeText(method),
    path.join('/'),
    contentFormat,
  ]);
  assert.deepEqual(sent, [
    ['0.01', '', undefined],
    ['0.04', '0/1', undefined],
    ['0.04', '1/0', undefined],
    ['0.03', '0/1', 110],
    ['0.03', '1/0', 110],
    ['0.02', 'bs', undefined],
  ]);
  const security = decodeContent(
    ContentFormat.SenmlJson,
    (calls[3]?.[1].payload as Uint8Array | undefined) ?? new Uint8Array(),
    [0, 1],
  );
  assert.ok(
    security.some(({ path, value }) => pathText(path) === '/0/1/0' && value === 'coap://192.0.2.1:5683'),
  );
  assert.equal(bootstrap.has('a'), true);
  assert.equal(events.count('lwm2m.bootstrapped'), 1);
});

/** Requests of a bootstrap of a client that answers Bootstrap-Discover with these links. */
async function bootstrapOf(links: string, answer: Answer = () => ({ code: Code.Deleted })) {
  const { ask, settle, calls, events } = rig((request) =>
    request.method === Code.GET ? { payload: Buffer.from(links) } : answer(request),
  );
  await ask(Code.POST, '/bs', ['ep=a']);
  for (let i = 0; i < 4; i++) await settle();
  const paths = (method: number) =>
    calls.filter(([, call]) => call.method === method).map(([, { path }]) => path.join('/'));
  return {
    deleted: paths(Code.DELETE),
    written: paths(Code.PUT),
    isDone: events.count('lwm2m.bootstrapped'),
  };
}

// conforms: GW-26
test('a bootstrap deletes accounts of other servers, and nothing else of the tree', async () => {
  const tree = '</3/0>,</5/0>,</33000/0>,</33000/7>,</3303/0>';
  const former = '</0/1>;ssid=7,</1/0>;ssid=7,</2/0>,</2/1>,</21/0>;ssid=7';
  const usual = await bootstrapOf(`</>;lwm2m=1.1,</0/0>,${former},${tree}`);
  assert.deepEqual(usual.deleted, ['0/1', '1/0', '2/0', '2/1', '21/0']);
  assert.deepEqual(usual.written, ['0/1', '1/0']);
  // Its account is not at instance 0, or has an ID that stands for the bootstrap server.
  for (const ssid of ['', ';ssid=0', ';ssid=65535']) {
    const moved = await bootstrapOf(`</0/0>;ssid=7,</0/1>${ssid},${tree}`);
    assert.deepEqual(moved, { deleted: ['0/0'], written: ['0/0', '1/0'], isDone: 1 });
  }
  const fresh = await bootstrapOf(`</0/0>,${tree}`);
  assert.deepEqual(fresh, { deleted: [], written: ['0/1', '1/0'], isDone: 1 });
});

test('a bootstrap of a client whose links do not show the account of the bootstrap server deletes whole objects', async () => {
  const whole = { deleted: ['0', '1', '2', '21'], written: ['0/1', '1/0'], isDone: 1 };
  const many = Array.from({ length: 17 }, (_, at) => `</0/${at + 1}>;ssid=7`).join();
  for (const links of ['', 'no links', '</1/0>;ssid=7,</3/0>', '</0/0>;ssid=7', `</0/0>,${many}`])
    assert.deepEqual(await bootstrapOf(links), whole, links);
  // LwM2M 1.0 has 4.00 for what is not there.
  for (const code of [Code.NotFound, Code.BadRequest]) {
    const answer: Answer = ({ method }) => ({ code: method === Code.DELETE ? code : Code.Changed });
    assert.deepEqual(await bootstrapOf('', answer), whole);
  }
  const refused: Answer = ({ method }) => ({ code: method === Code.DELETE ? Code.BadRequest : Code.Changed });
  assert.equal((await bootstrapOf('</0/0>,</0/1>;ssid=7', refused)).isDone, 0);
});

// conforms: GW-26
test('a bootstrap of a client that names no servers finds its own account by what is left', async () => {
  for (const [left, free] of [
    ['0/0', '0/1'],
    ['0/1', '0/0'],
    ['0/2', '0/0'],
  ]) {
    let isDeleted = false;
    const { ask, settle, calls, events } = rig(({ method }) => {
      isDeleted ||= method === Code.DELETE;
      const links = isDeleted ? `</${left}>,</3/0>` : '</0/0>,</0/1>,</0/2>,</1/0>,</3/0>';
      return method === Code.GET ? { payload: Buffer.from(links) } : { code: Code.Changed };
    });
    await ask(Code.POST, '/bs', ['ep=a']);
    for (let i = 0; i < 4; i++) await settle();
    const done = calls.map(([, { method, path }]) => `${codeText(method)} ${path.join('/')}`);
    const written = ['0.01 ', `0.03 ${free}`, '0.03 1/0', '0.02 bs'];
    assert.deepEqual(done, ['0.01 ', '0.04 0', '0.04 1', '0.04 2', '0.04 21', ...written]);
    assert.equal(events.count('lwm2m.bootstrapped'), 1);
  }
});

// conforms: GW-26
test('a bootstrap that fails does not count; a Bootstrap-Pack has the whole account in one answer', async () => {
  const broken = rig(({ method }) => ({ code: method === Code.PUT ? Code.BadRequest : Code.Changed }));
  await broken.ask(Code.POST, '/bs', ['ep=a']);
  await broken.settle();
  assert.equal(broken.bootstrap.has('a'), false);
  assert.equal(broken.events.count('lwm2m.bootstrap-failed'), 1);

  const { ask, bootstrap } = rig(described);
  const { code, reply } = await ask(Code.GET, '/bspack', ['ep=a'], { accept: ContentFormat.SenmlCbor });
  assert.equal(code, '2.05');
  const entries = decodeContent(ContentFormat.SenmlCbor, reply?.payload ?? new Uint8Array(), []);
  const at = (path: string) => entries.find((entry) => pathText(entry.path) === path)?.value;
  assert.deepEqual([at('/0/1/0'), at('/1/0/1')], ['coap://192.0.2.1:5683', 600]);
  assert.deepEqual([...new Set(entries.map(({ path }) => pathText(path.slice(0, 2))))], ['/0/1', '/1/0']);
  assert.equal(bootstrap.has('a'), true);
  assert.equal((await ask(Code.GET, '/bspack', ['ep=a'], { accept: 60 })).code, '4.06');
  assert.equal((await ask(Code.GET, '/bspack', ['ep=stranger'])).code, '4.03');
});

test('a client that is removed while it is bootstrapped gets no Finish', async () => {
  const { ask, settle, events, bootstrap, strangers, calls } = rig(({ method }) => {
    if (method === Code.DELETE) strangers.add('a');
    return { code: Code.Changed };
  });
  await ask(Code.POST, '/bs', ['ep=a']);
  await settle();
  assert.ok(calls.every(([, { path }]) => path[0] !== 'bs'));
  assert.equal(bootstrap.has('a'), false);
  await events.until('lwm2m.bootstrap-failed', { device: 'a' });
});

test('one bootstrap of a name at a time: at another address it is refused, a repetition is taken', async () => {
  const { ask } = rig(described);
  assert.equal((await ask(Code.POST, '/bs', ['ep=a'])).code, '2.04');
  assert.equal((await ask(Code.POST, '/bs', ['ep=a'], { port: 2 })).code, '5.03');
  assert.equal((await ask(Code.POST, '/bs', ['ep=a'])).code, '2.04');
});

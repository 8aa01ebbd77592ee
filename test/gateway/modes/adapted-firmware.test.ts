import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Code } from '../../../src/wire/coap/codes.ts';
import { type CoapRequest, refusal } from '../../../src/wire/coap/message.ts';
import { behave, firmwareRig, httpUrl, url } from './firmware-rig.ts';

const limit = { timeout: 30_000 };

for (const [result, fumo] of [
  [2, 501],
  [3, 501],
  [4, 503],
  [5, 402],
  [6, 405],
  [7, 411],
  [8, 410],
  [9, 411],
  [10, 401],
  [200, 410],
] as const)
  for (const state of [0, 2])
    test(
      `an update that ends in State ${state} with Update Result ${result} has failed with ${fumo}`,
      limit,
      async (t) => {
        const { client, order } = await firmwareRig(t);
        behave(client, result, state);
        assert.equal(await order(), fumo);
        // The next order is not blocked, and does not take this result for its own.
        behave(client);
        assert.equal(await order(), 200);
        assert.deepEqual(client.asked, [`uri ${url}`, 'update', 'uri ', `uri ${url}`, 'update']);
      },
    );

test(
  'a client that goes on to tell an earlier success is neither done too early nor forgotten',
  limit,
  async (t) => {
    const { client, order, drop } = await firmwareRig(t);
    behave(client);
    client.result = 1;
    client.uri = (value) => {
      client.state = value === '' ? 0 : 2;
      return Code.Changed;
    };
    let outcome = { state: 0, result: 1 };
    let updated = 0;
    client.update = () => {
      client.state = 3;
      updated = client.polls;
      return Code.Changed;
    };
    client.polled = (count) => {
      if (updated > 0 && count === updated + 4) Object.assign(client, outcome);
    };
    // Each request is lost at first.
    const heard = new Set<string>();
    const dropFirst = () => {
      heard.clear();
      drop((path) => path !== '5/0' && heard.size !== heard.add(`${path} ${client.asked.length}`).size);
    };
    dropFirst();
    assert.equal(await order(), 200);
    assert.deepEqual(client.asked, ['uri ', `uri ${url}`, 'update']);
    client.result = 1;
    outcome = { state: 2, result: 8 };
    updated = 0;
    assert.equal(await order(), 410, 'it has failed, whatever it said before');
  },
);

test('a client whose State is no number has failed at once', limit, async (t) => {
  const { client, clock, order } = await firmwareRig(t);
  behave(client);
  client.state = 1.5;
  const begun = clock.now();
  assert.equal(await order(), 410);
  assert.ok(clock.now() - begun < 600_000);
});

test('an update that the client defers has not failed', limit, async (t) => {
  const { client, order } = await firmwareRig(t);
  behave(client, 11, 2);
  client.polled = (count) => {
    if (count === 8) Object.assign(client, { state: 0, result: 1 });
  };
  assert.equal(await order(), 200);
  assert.ok(client.polls >= 8);
});

test('a client that cannot be reset may tell its earlier result once', limit, async (t) => {
  const { client, order } = await firmwareRig(t);
  behave(client);
  const { uri } = client;
  client.result = 8;
  let polled = 0;
  client.uri = (value) => {
    if (value === '') return Code.BadRequest;
    polled = client.polls;
    return Code.Changed;
  };
  client.polled = (count) => {
    if (polled > 0 && count === polled + 2) uri(url);
  };
  assert.equal(await order(), 200);
});

test(
  'a client that deregisters before it reboots is waited for; one that does not come back has failed after an hour',
  limit,
  async (t) => {
    const { client, order, leave, comeBack, clock } = await firmwareRig(t);
    behave(client);
    const { update } = client;
    client.update = () => {
      setImmediate(leave);
      clock.after(600_000, comeBack);
      return update();
    };
    assert.equal(await order(), 200);
    client.update = () => {
      setImmediate(leave);
      return Code.Changed;
    };
    const begun = clock.now();
    assert.equal(await order(), 503);
    assert.ok(clock.now() - begun >= 3_600_000);
  },
);

test('whatever answer is lost, the state of the client tells what it has heard', limit, async (t) => {
  const { client, order, lose } = await firmwareRig(t);
  behave(client);
  let losses = 0;
  lose((path) => path === '5/0/2' || (path === '5/0' && ++losses % 3 !== 0));
  assert.equal(await order(), 200);
  assert.ok(losses >= 4);
  // The answer to the reset is lost, then the one to the URI.
  client.asked.length = 0;
  lose((path) => path === '5/0/1');
  assert.equal(await order(), 200);
  assert.deepEqual(client.asked, ['uri ', `uri ${url}`, 'update']);
  client.asked.length = 0;
  client.delivery = 1;
  lose((path) => path === '5/0/0');
  assert.equal(await order('Download'), 200);
  assert.deepEqual(client.asked, ['package 1', 'package 5000']);
});

test('a request that the client has not heard is sent again', limit, async (t) => {
  const { client, clock, order, drop } = await firmwareRig(t);
  behave(client);
  for (const delivery of [0, 1]) {
    Object.assign(client, { delivery, state: 2, result: 8 });
    client.asked.length = 0;
    const drops = new Map<string, number>();
    drop((path) => {
      const times = (drops.get(path) ?? 0) + 1;
      drops.set(path, times);
      return times % 3 !== 0;
    });
    assert.equal(await order(), 200);
    const given = delivery === 0 ? ['uri ', `uri ${url}`] : ['package 1', 'package 5000'];
    assert.deepEqual(client.asked, [...given, 'update']);
  }
  // A client that hears nothing any more has failed after an hour.
  drop((path) => path === '5/0/2');
  const begun = clock.now();
  assert.equal(await order(), 503);
  assert.ok(clock.now() - begun >= 3_600_000);
});

test(
  'a refusal of a request that is sent again counts where the client is untouched by both',
  limit,
  async (t) => {
    const { client, order, drop } = await firmwareRig(t);
    behave(client);
    const dropFirst = () => {
      let requests = 0;
      drop((path) => path === '5/0/2' && ++requests === 1);
    };
    dropFirst();
    // The first one was late, and comes just before the second one.
    client.update = () => {
      Object.assign(client, { state: 0, result: 1 });
      return Code.MethodNotAllowed;
    };
    assert.equal(await order(), 200);
    dropFirst();
    client.update = () => Code.MethodNotAllowed;
    assert.equal(await order(), 410);
  },
);

test(
  'an earlier package that the client keeps is never installed in place of one without an answer',
  limit,
  async (t) => {
    const { client, order, drop } = await firmwareRig(t);
    behave(client);
    const { uri } = client;
    client.uri = (value) => (value === '' ? Code.BadRequest : uri(value));
    client.state = 2;
    let writes = 0;
    drop((path) => path === '5/0/1' && ++writes === 2);
    assert.equal(await order(), 410);
    assert.deepEqual(client.asked, ['uri ']);
  },
);

test(
  'a client that only takes pushes gets the package by Write, and so does one that takes both and does not know the protocol',
  limit,
  async (t) => {
    const { client, order, image } = await firmwareRig(t);
    behave(client);
    for (const [delivery, protocols] of [
      [1, []],
      [1, [0]],
      [2, [3, 5]],
    ] as const) {
      Object.assign(client, { delivery, protocols, asked: [], state: 0, result: 0, pushed: undefined });
      client.asked.length = 0;
      assert.equal(await order(), 200);
      assert.deepEqual(client.asked, ['package 5000', 'update']);
      assert.deepEqual(client.pushed, image);
    }
    // What is left of an earlier update is taken away by an empty package.
    Object.assign(client, { state: 2, result: 8 });
    assert.equal(await order('Download'), 200);
    assert.deepEqual(client.asked.slice(-2), ['package 1', 'package 5000']);
    for (const [delivery, protocols, given] of [
      [0, [1], url],
      [2, [0, 1], url],
      [2, [], url],
      [0, [2, 3], httpUrl],
      [2, [2], httpUrl],
      [0, [2, 0], url],
    ] as const) {
      Object.assign(client, { delivery, protocols, state: 0, result: 0 });
      assert.equal(await order('Download'), 200);
      assert.equal(client.asked.at(-1), `uri ${given}`);
    }
    // A URI of another server is passed on as it is.
    Object.assign(client, { delivery: 0, protocols: [2], state: 0, result: 0 });
    assert.equal(await order('Download', 'coap://192.0.2.9/other'), 200);
    assert.equal(client.asked.at(-1), 'uri coap://192.0.2.9/other');
  },
);

test(
  'a push that the client refuses has failed; only an image of this device is pushed',
  limit,
  async (t) => {
    const { client, order } = await firmwareRig(t);
    client.delivery = 1;
    const { answer } = client;
    Object.assign(client, {
      answer: (request: CoapRequest) =>
        request.path.join('/') === '5/0/0' && request.payload.length > 1
          ? refusal(Code.RequestEntityTooLarge, 'no room')
          : answer(request),
    });
    assert.equal(await order('Download'), 410);
    client.uri = () => Code.MethodNotAllowed;
    assert.equal(await order('Download', 'coap://192.0.2.1/img/other?v=1&t=1'), 410);
    assert.deepEqual(client.asked.at(-1), 'uri coap://192.0.2.1/img/other?v=1&t=1');
  },
);

test('a second order while one runs is refused', limit, async (t) => {
  const { client, order, firmware, known } = await firmwareRig(t);
  behave(client);
  const first = order();
  assert.throws(() => firmware.execute(known, ['Update'], undefined), /under way/);
  assert.equal(await first, 200);
});

test('State tells a failed update that left its package', limit, async (t) => {
  const { client, firmware, known } = await firmwareRig(t);
  for (const [state, result, fumo] of [
    [2, 8, '70'],
    [2, 0, '40'],
    [2, 11, '40'],
    [0, 8, '80'],
    [0, 5, '20'],
    [0, 1, '100'],
  ] as const) {
    Object.assign(client, { state, result });
    assert.equal(await firmware.get(known, ['State']), fumo, `${state} ${result}`);
  }
});

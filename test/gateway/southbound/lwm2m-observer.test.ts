import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { floorBurst } from '../../../src/gateway/southbound/notification-floor.ts';
import { observationBounds } from '../../../src/gateway/southbound/observer.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { Option, uint } from '../../../src/wire/coap/options.ts';
import { name, rig } from './observed-rig.ts';

const temperature = '/3303/0/5700';
const wishOf = (paths: readonly string[] = [temperature], attributes = {}, wish = 'w') => ({
  name: wish,
  paths,
  attributes,
});
const silence = new PosternError('timeout', 'no response');

describe('observations of an LwM2M client', () => {
  test('are set up when it registers: first the conditions, then the observation; values come by their name', async () => {
    const { observer, register, take, notify, observations, values, heard, reported, clock } = rig();
    observer.wish(name, [wishOf([temperature], { pmin: 10, pmax: 60, gt: 30.5, lt: -5, st: 0.5 })]);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
    assert.equal(observer.stateOf(name, 'other'), undefined);
    await register();
    assert.deepEqual(take(), [
      `PUT ${temperature}?pmin=10&pmax=60&gt=30.5&lt=-5&st=0.5`,
      `GET ${temperature} observe`,
    ]);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'observing' });
    notify(observations[0]!, { [temperature]: 21.5 });
    assert.deepEqual(reported[0]?.[2], [{ path: temperature, value: 21.5, at: clock.wall() }]);
    assert.deepEqual(values(), [`w ${temperature}=21.5`]);
    assert.deepEqual(heard, [`${name} 192.0.2.7`]);
  });

  test('tell the other values of a notification that has one of another type than the registry', async () => {
    const { observer, register, notify, observations, values } = rig();
    observer.wish(name, [wishOf(['/3303/0'])]);
    await register();
    const options = [uint(Option.Observe, 1), uint(Option.ContentFormat, ContentFormat.LwM2mTlv)];
    notify(observations[0]!, {}, { options, payload: Buffer.from('e31644010203e415e13f800000', 'hex') });
    assert.deepEqual(values(), ['w /3303/0/5700=1,2,3 /3303/0/5601=1']);
  });

  test('stand when the client has confirmed them, and not while it is asked', async () => {
    const { observer, register, delays } = rig();
    const answer = Promise.withResolvers<void>();
    delays(() => answer.promise);
    observer.wish(name, [wishOf()]);
    await register();
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
    answer.resolve();
    await register();
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'observing' });
  });

  test('are the same after the same wish, and change as the wish changes', async () => {
    const { observer, register, take, observations, settled } = rig();
    observer.wish(name, [wishOf([temperature], { pmin: 10, gt: 3 })]);
    await register();
    take();
    observer.wish(name, [wishOf([temperature], { pmin: 10, gt: 3 })]);
    await settled();
    assert.deepEqual(take(), []);
    observer.wish(name, [wishOf([temperature], { pmin: 20 })]);
    await settled();
    assert.deepEqual(take(), [
      `GET ${temperature} cancel`,
      `PUT ${temperature}?pmin=20&gt`,
      `GET ${temperature} observe`,
    ]);
    assert.equal(observations.length, 1);
    observer.wish(name, []);
    await settled();
    assert.deepEqual(take(), [`GET ${temperature} cancel`]);
    assert.deepEqual([observations.length, observer.stateOf(name, 'w')], [0, undefined]);
  });

  test('of several paths are one request, and one answer after another is asked for where the client knows no composite', async () => {
    const paths = [temperature, '/3/0/9'];
    const { observer, register, take, observations, notify, values } = rig();
    observer.wish(name, [wishOf(paths)]);
    await register();
    assert.deepEqual(take(), [`FETCH ${paths.join(' ')} observe`]);
    notify(observations[0]!, { [temperature]: 1, '/3/0/9': 2 });
    assert.deepEqual(values(), [`w ${temperature}=1 /3/0/9=2`]);

    for (const code of [
      Code.MethodNotAllowed,
      Code.BadOption,
      Code.NotAcceptable,
      Code.NotImplemented,
      Code.NotFound,
    ]) {
      const refusing = rig();
      refusing.answers((request) => (request.startsWith('FETCH') ? { code } : 'observes'));
      refusing.observer.wish(name, [wishOf(paths)]);
      await refusing.register();
      assert.deepEqual(
        [refusing.take().slice(1), refusing.observer.stateOf(name, 'w')],
        [paths.map((path) => `GET ${path} observe`), { state: 'observing' }],
      );
    }
    const old = rig();
    old.observer.wish(name, [wishOf(paths)]);
    await old.register({ version: '1.0' });
    assert.deepEqual(
      old.take(),
      paths.map((path) => `GET ${path} observe`),
    );
  });

  test('are set up anew after each new registration, and at a new address or port; what the earlier one still sends says nothing', async () => {
    const { observer, register, take, observations, notify, values, reported } = rig();
    observer.wish(name, [wishOf()]);
    await register();
    for (const changes of [
      { location: 'b' },
      { location: 'b', port: 6 },
      { location: 'b', port: 6, address: '192.0.2.8' },
    ]) {
      take();
      const [old] = observations;
      await register(changes);
      assert.deepEqual(take(), [`GET ${temperature} observe`]);
      assert.equal(observations.length, 1);
      assert.equal(old?.isActive, false);
      assert.notDeepEqual(observations[0]?.token, old?.token);
    }
    await register({ location: 'b', port: 6, address: '192.0.2.8' });
    assert.deepEqual(take(), [], 'an update without changes');
    notify(observations[0]!, { [temperature]: 2 });
    assert.deepEqual(values(), [`w ${temperature}=2`]);
    assert.deepEqual(reported, []);
  });

  test('wait when the client leaves, and while it is asleep', async () => {
    const { observer, register, take, registrations, at, settled } = rig();
    observer.wish(name, [wishOf()]);
    at.awake = false;
    await register({ queueMode: true });
    assert.deepEqual(take(), []);
    at.awake = true;
    observer.heard(name);
    await settled();
    assert.deepEqual(take(), [`GET ${temperature} observe`]);
    registrations.clear();
    observer.detached(name);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
  });

  test('of a silent client are tried again: when it is heard, and after growing pauses', async () => {
    const { observer, register, take, answers, clock, events, settled } = rig();
    answers(() => silence);
    observer.wish(name, [wishOf()]);
    await register();
    assert.equal(take().length, 1);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
    assert.equal(events.all.at(-1)?.name, 'observation.waiting');
    observer.heard(name);
    await settled();
    assert.deepEqual(take(), [], 'not at each message');
    clock.advance(10_000);
    observer.heard(name);
    await settled();
    assert.equal(take().length, 1);
    const pauses: number[] = [];
    for (let tries = 0; tries < 8; tries++) {
      pauses.push(clock.next! / 60_000);
      clock.advance(clock.next!);
      await settled();
      assert.equal(take().length, 1);
    }
    assert.deepEqual(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    answers(() => 'observes');
    clock.advance(clock.next!);
    await settled();
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'observing' });
  });

  test('are not made with a client that does not prove that it is there', async () => {
    const { observer, register, take, at } = rig();
    at.silent = true;
    observer.wish(name, [wishOf()]);
    await register();
    assert.deepEqual(take(), []);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
  });

  test('that the client refuses have its reason, path by path; the others are observed', async () => {
    const paths = [temperature, '/3/0/99'];
    const { observer, register, take, answers, observations, settled } = rig();
    answers((request) => {
      if (request.startsWith('FETCH')) return { code: Code.NotFound };
      return request.includes('/3/0/99')
        ? { code: Code.NotFound, payload: Buffer.from('no such resource') }
        : 'observes';
    });
    observer.wish(name, [wishOf(paths), wishOf(['/3/0/99'], { pmin: 1 }, 'conditions')]);
    await register();
    const state = observer.stateOf(name, 'w');
    assert.equal(state?.state, 'refused');
    assert.match(state.state === 'refused' ? state.reason : '', /^\/3\/0\/99: .*4\.04.*no such resource$/);
    assert.equal(observations.length, 1);
    take();
    observer.heard(name);
    await settled();
    assert.deepEqual(take(), [], 'what is refused is not asked for again');
    await register({
      paths: [
        [3, 0],
        [3303, 0],
        [3303, 1],
      ],
    });
    assert.ok(take().includes('GET /3/0/99 observe'), 'until its objects change');
  });

  test('are refused where the client answers without observing, or does not take the conditions', async () => {
    const { observer, register, answers } = rig();
    answers((request) => (request.includes('observe') ? {} : { code: Code.BadRequest }));
    observer.wish(name, [wishOf(), wishOf(['/3/0/9'], { gt: 1 }, 'v')]);
    await register();
    for (const [wish, why] of [
      ['w', /does not observe/],
      ['v', /4\.00/],
    ] as const) {
      const state = observer.stateOf(name, wish);
      assert.match(state?.state === 'refused' ? state.reason : '', why);
    }
  });

  test('end as the client ends them: by an error for good, in another way for a minute', async () => {
    const { observer, register, take, observations, notify, clock, settled } = rig();
    observer.wish(name, [wishOf()]);
    await register();
    take();
    notify(observations[0]!, {}, { options: [], code: Code.Content });
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
    clock.advance(60_000);
    await settled();
    assert.deepEqual(take(), [`GET ${temperature} observe`]);
    notify(observations[0]!, {}, { options: [], code: Code.NotFound });
    const state = observer.stateOf(name, 'w');
    assert.match(state?.state === 'refused' ? state.reason : '', /4\.04/);
    observer.heard(name);
    await settled();
    assert.deepEqual(take(), []);
  });

  test('of which nothing came for longer than pmax are made anew when the client is heard', async () => {
    const { observer, register, take, observations, notify, clock, settled } = rig();
    observer.wish(name, [wishOf([temperature], { pmax: 60 })]);
    await register();
    clock.advance(100_000);
    notify(observations[0]!, { [temperature]: 1 });
    clock.advance(120_000);
    take();
    observer.heard(name);
    await settled();
    assert.deepEqual(take(), []);
    clock.advance(1);
    observer.heard(name);
    await settled();
    assert.deepEqual(take(), [`GET ${temperature} observe`]);
  });

  test('that are taken back while they are being made do not stay at the client', async () => {
    const { observer, register, take, delays, observations, settled } = rig();
    const gate = Promise.withResolvers<void>();
    delays(() => gate.promise);
    observer.wish(name, [wishOf()]);
    await register();
    observer.wish(name, [wishOf(['/3/0/9'], {}, 'v')]);
    gate.resolve();
    await settled();
    assert.deepEqual(take(), [
      `GET ${temperature} observe`,
      `GET ${temperature} cancel`,
      'GET /3/0/9 observe',
    ]);
    assert.equal(observations.length, 1);
  });

  test('that are made while the client leaves do not stay either', async () => {
    const { observer, register, delays, observations, registrations, settled } = rig();
    const gate = Promise.withResolvers<void>();
    delays(() => gate.promise);
    observer.wish(name, [wishOf()]);
    await register();
    registrations.clear();
    observer.detached(name);
    gate.resolve();
    await settled();
    assert.equal(observations.length, 0);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'waiting' });
  });

  test('two at once have their own values, of the same path too; other conditions for the same path are refused', async () => {
    const { observer, register, observations, notify, values } = rig();
    observer.wish(name, [
      wishOf([temperature], { pmin: 1 }),
      wishOf(['3303/0/5700'], { pmin: 1 }, 'same'),
      wishOf([temperature], { pmin: 2 }, 'other'),
    ]);
    await register();
    assert.equal(observations.length, 2);
    notify(observations[0]!, { [temperature]: 1 });
    notify(observations[1]!, { [temperature]: 2 });
    assert.deepEqual(values(), [`w ${temperature}=1`, `same ${temperature}=2`]);
    const state = observer.stateOf(name, 'other');
    assert.match(state?.state === 'refused' ? state.reason : '', /under other conditions/);
  });

  test('go up to 64 paths of one client, and no further', async () => {
    const { observer, register, observations } = rig();
    const paths = Array.from({ length: observationBounds.paths }, (_, id) => `/3303/${id}/5700`);
    observer.wish(name, [wishOf(paths), wishOf(['/3/0/9'], {}, 'beyond')]);
    await register({ version: '1.0' });
    assert.equal(observations.length, 64);
    assert.deepEqual(observer.stateOf(name, 'w'), { state: 'observing' });
    const state = observer.stateOf(name, 'beyond');
    assert.match(state?.state === 'refused' ? state.reason : '', /more than 64/);
  });

  for (const [paths, why] of [
    [['/x'], /not an LwM2M path/],
    [['/'], /no object/],
    [[], /no object/],
  ] as const)
    test(`paths ${JSON.stringify(paths)} are refused without a question`, async () => {
      const { observer, register, take } = rig();
      observer.wish(name, [wishOf(paths)]);
      await register();
      const state = observer.stateOf(name, 'w');
      assert.match(state?.state === 'refused' ? state.reason : '', why);
      assert.deepEqual(take(), []);
    });

  test('no more than 32 clients are asked at a time, and each has its turn', async () => {
    const { observer, register, take, delays, settled } = rig();
    const gate = Promise.withResolvers<void>();
    delays(() => gate.promise);
    for (let client = 0; client < 100; client++) {
      observer.wish(`c${client}`, [wishOf()]);
      await register({}, `c${client}`);
    }
    assert.equal(take().length, 32);
    gate.resolve();
    for (let turns = 0; turns < 20; turns++) await settled();
    assert.equal(take().length, 68);
    assert.deepEqual(observer.stateOf('c99', 'w'), { state: 'observing' });
  });

  test('end with the observer: no timer is left, and no observation', async () => {
    const { observer, register, observations, clock, answers } = rig();
    observer.wish(name, [wishOf()]);
    await register();
    answers(() => silence);
    observer.wish('b', [wishOf()]);
    await register({}, 'b');
    assert.equal(clock.timers, 1);
    await observer[Symbol.asyncDispose]();
    assert.deepEqual([clock.timers, observations.length], [0, 0]);
  });
});

describe('notifications of an LwM2M client', () => {
  const observed = async (attributes = {}, paths = [temperature]) => {
    const made = rig();
    made.observer.wish(name, [wishOf(paths, attributes)]);
    await made.register();
    return { ...made, only: made.observations[0]! };
  };

  test('faster than pmin are bounded beyond 64: the newest is held and comes in the end, and that is said once', async () => {
    const { only, notify, values, clock, events } = await observed({ pmin: 10 });
    for (let n = 1; n <= floorBurst + 20; n++) notify(only, { [temperature]: n });
    assert.equal(values().length, floorBurst);
    const floods = () => events.all.filter((event) => event.name === 'observation.flood').length;
    assert.equal(floods(), 1);
    clock.advance(10_001);
    assert.deepEqual(values(), [`w ${temperature}=${floorBurst + 20}`]);
    for (let n = 100; n <= 110; n++) notify(only, { [temperature]: n });
    clock.advance(60_000);
    assert.deepEqual(values(), [`w ${temperature}=110`]);
    assert.equal(floods(), 1);
    clock.advance(10 * 1000 * floorBurst);
    for (let n = 1; n <= floorBurst + 2; n++) notify(only, { [temperature]: n });
    assert.equal(floods(), 2, 'after it was calm it is said again');
  });

  test('do not overtake one that is held', async () => {
    const { only, notify, values, clock } = await observed({ pmin: 10 });
    for (let n = 1; n <= floorBurst + 1; n++) notify(only, { [temperature]: n });
    values();
    // There is room again, and the timer has not seen it yet.
    clock.advance(10_000);
    notify(only, { [temperature]: 1000 });
    clock.advance(60_000);
    assert.deepEqual(values(), [`w ${temperature}=1000`]);
  });

  test('as fast as pmin lets them pass all, for each observation', async () => {
    const { observations, notify, values, clock, observer, settled } = await observed({ pmin: 10 });
    observer.wish(name, [wishOf([temperature], { pmin: 10 }), wishOf(['/3/0/9'], { pmin: 5 }, 'v')]);
    await settled();
    for (let second = 0; second < 2000; second += 5) {
      clock.advance(5000);
      notify(observations[1]!, { '/3/0/9': second });
      if (second % 10 === 0) notify(observations[0]!, { [temperature]: second });
    }
    assert.equal(values().length, 600);
  });

  test('keep the time when they came, also when they are held', async () => {
    const { only, notify, reported, clock } = await observed({ pmin: 10 });
    for (let n = 0; n < floorBurst; n++) notify(only, { [temperature]: n });
    const came = clock.wall();
    notify(only, { [temperature]: 99 });
    clock.advance(20_000);
    assert.deepEqual(reported.at(-1)?.[2], [{ path: temperature, value: 99, at: came }]);
  });

  test('have the time that the client names, and integers of 64 bits whole', async () => {
    const { only, reported, clock } = await observed({}, ['/3/0']);
    const senml = '[{"bn":"/3/0/","bt":1700000000,"n":"13","v":9007199254740993},{"n":"9","t":-5,"v":7}]';
    const format = uint(Option.ContentFormat, ContentFormat.SenmlJson);
    only.take(
      {
        type: 1,
        messageId: 1,
        token: only.token,
        code: Code.Content,
        options: [uint(Option.Observe, 9), format],
        payload: Buffer.from(senml),
      },
      { address: 'a', port: 1, key: 'a' },
      clock.now(),
    );
    assert.deepEqual(reported[0]?.[2], [
      { path: '/3/0/13', value: 9_007_199_254_740_993n, at: 1_700_000_000_000 },
      { path: '/3/0/9', value: 7, at: 1_699_999_995_000 },
    ]);
  });

  test('that cannot be read, or are of other paths, are said and dropped; the next one counts', async () => {
    const { only, notify, values, events } = await observed();
    notify(only, {}, { payload: Buffer.of(0xff) });
    notify(only, { '/3/0/9': 1 });
    notify(only, { [temperature]: 1, '/3303/1/5700': 2 });
    notify(only, {}, { options: [uint(Option.Observe, 100), uint(Option.ContentFormat, 65_000)] });
    assert.deepEqual(values(), []);
    assert.deepEqual(
      events.all.map((event) => event.name),
      Array(4).fill('observation.unreadable'),
    );
    only.take(
      {
        type: 1,
        messageId: 1,
        token: only.token,
        code: Code.Content,
        options: [uint(Option.Observe, 101)],
        payload: Buffer.from('22.5'),
      },
      { address: 'a', port: 1, key: 'a' },
      0 as never,
    );
    assert.deepEqual(values(), [`w ${temperature}=22.5`]);
  });
});

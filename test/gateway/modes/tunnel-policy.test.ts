import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TunnelPolicy, unprovenPackageBytes } from '../../../src/gateway/modes/tunnel-policy.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

const home = '192.0.2.7';

function rig(patterns: readonly string[] = ['urn:acme:*'], rate = 60, known = 1) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const devices = { patterns, rate };
  const policy = new TunnelPolicy({
    knownDevices: () => known,
    isKnown: (device) => device.startsWith('known'),
    devices: () => devices,
    clock,
    events,
  });
  /** Packages that get through of so many. */
  const through = (count: number, device: (at: number) => string, address: (at: number) => string) =>
    Array.from({ length: count }, (_, at) => policy.refusalOf(device(at), address(at), 100)).filter(
      (refusal) => refusal === undefined,
    ).length;
  return { clock, events, policy, through };
}

test('a device that nothing names is refused with what to do, and the log says so once, then with a count', () => {
  const { policy, events, clock } = rig();
  const refusal = policy.refusalOf('urn:other:1', home, 100);
  assert.equal(refusal?.status, 403);
  assert.match(refusal?.reason ?? '', /tunnel\.devices/);
  for (let number = 0; number < 1000; number++) policy.refusalOf(`urn:other:${number}`, home, 100);
  assert.equal(events.count('tunnel.device-refused'), 1);
  clock.advance(600_000);
  policy.refusalOf('urn:other:1', home, 100);
  assert.deepEqual(
    events.all.map(({ fields }) => fields.refused),
    [1, 1001],
  );
});

test('packages of devices that only match have a rate together, of which one network gets half', () => {
  const { through, clock, events } = rig();
  const name = (at: number) => `urn:acme:${at}`;
  assert.equal(
    through(1000, name, (at) => `198.51.100.${at % 250}`),
    30,
    'half for one /24',
  );
  assert.equal(
    through(1000, name, (at) => `203.0.113.${at % 250}`),
    30,
    'the rest for another',
  );
  assert.equal(events.count('tunnel.device-refused'), 1);
  clock.advance(10_000);
  assert.equal(
    through(1000, name, (at) => `192.0.2.${at % 250}`),
    10,
    'ten seconds later ten more',
  );
});

test('one address gets a share of a rate, and leaves the rest to others: of unknown devices and of known ones', () => {
  for (const [name, own, beyond] of [
    ['urn:acme', 60, 60],
    ['known', 16, 26],
  ] as const) {
    const { through, policy, clock } = rig(['urn:acme:*'], 600);
    const device = (at: number) => `${name}:${at}`;
    assert.equal(
      through(1000, device, () => '192.0.2.66'),
      own + beyond,
      name,
    );
    for (let second = 0; second < 60; second++) {
      clock.advance(1000);
      through(100, device, (at) => `192.0.2.${60 + (at % 2)}`);
      assert.equal(policy.refusalOf(device(5000 + second), `192.0.2.${100 + second}`, 100), undefined, name);
    }
  }
});

test('a flood in the names of strangers takes nothing from a known device, nor one in its own name from elsewhere', () => {
  const { through } = rig();
  through(
    10_000,
    (at) => `urn:acme:${at}`,
    (at) => `198.51.${at % 250}.1`,
  );
  assert.equal(
    through(
      100,
      () => 'known:1',
      () => '198.51.100.66',
    ),
    16,
  );
  assert.equal(
    through(
      16,
      () => 'known:1',
      () => home,
    ),
    16,
    'from its own address it has its own packages',
  );
});

test('where the DM server has accepted a device is remembered for this place alone; before that packages are small', () => {
  const { policy } = rig();
  assert.equal(policy.refusalOf('known:1', home, unprovenPackageBytes + 1)?.status, 413);
  policy.accept('known:1', `${home}|5683`);
  assert.ok(policy.hasAccepted('known:1', `${home}|5683`));
  assert.ok(!policy.hasAccepted('known:1', `${home}|5684`));
  assert.ok(!policy.hasAccepted('known:2', `${home}|5683`));
});

test('5,000 known devices that start at once get through with the two packages that each needs; made-up copies are bounded', () => {
  const { through, clock } = rig([], 60, 5000);
  const device = (at: number) => `known:${at % 5000}`;
  const address = (at: number) => `10.${(at % 5000) >> 8}.${at & 255}.${(at % 5000) & 127}`;
  assert.equal(through(10_000, device, address), 10_000);
  const forged = (at: number) => `172.16.${at >> 8}.${at & 255}`;
  assert.ok(through(60_000, device, forged) <= 16_384 - 10_000);
  clock.advance(10_000);
  assert.ok(through(1000, device, forged) <= 250);
});

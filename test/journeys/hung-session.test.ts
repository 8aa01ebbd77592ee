import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startAedes } from '../peers/brokers.ts';
import { attachBelow, childOf, device, start } from './parent-and-child.ts';

const limit = { timeout: 60_000 };
const ports = { coap: { port: 0, leisure: 50 }, coaps: { port: 0 } };

test(
  'a session of a child with a DM server that hangs keeps no alert back from its parent',
  limit,
  async (t) => {
    await using broker = await startAedes();
    // Nobody is behind the broker: the DM server of the child takes packages and never answers.
    const parent = await start(t, ['gw-2'], ports, undefined, broker.url);
    await parent.events.until('mqtt.connected');
    const child = await childOf(t, parent.gateway.coapsPort!);
    await parent.events.until('device.attached', { device: 'gw-2' });
    const hangs = child.events.next('dm.session-started', { server: 'dm.example' });
    child.parts.dmClient.contact('dm.example');
    await hangs;
    const began = performance.now();
    await attachBelow(t, child.gateway);
    await parent.events.until('device.attached', { device, via: 'gw-2' });
    assert.equal(child.events.count('dm.session-failed'), 0, 'the session still hangs');
    // Less than the 60 s for one answer.
    assert.ok(performance.now() - began < 30_000);
    assert.equal(child.events.count('alert.refused'), 0);
  },
);

test(
  'a child ends in the middle of a session that hangs, without waiting for its answer',
  limit,
  async (t) => {
    await using broker = await startAedes();
    const parent = await start(t, ['gw-2'], ports, undefined, broker.url);
    await parent.events.until('mqtt.connected');
    const child = await childOf(t, parent.gateway.coapsPort!);
    await parent.events.until('device.attached', { device: 'gw-2' });
    child.parts.dmClient.contact('dm.example');
    await child.events.until('dm.session-started', { server: 'dm.example' });
    const stops = performance.now();
    await child.gateway[Symbol.asyncDispose]();
    assert.ok(performance.now() - stops < 10_000);
  },
);

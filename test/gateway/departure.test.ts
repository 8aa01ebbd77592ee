import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { systemEntropy } from '../../src/base/entropy.ts';
import { gatewayConfigSchema } from '../../src/gateway/config.ts';
import { departIfNeeded } from '../../src/gateway/departure.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-departure-'));
after(() => rmSync(folder, { recursive: true, force: true }));

test('a board that belongs to nobody says so and stays, by a timer of its own, until it is stopped', async () => {
  mkdirSync(join(folder, 'identity'));
  writeFileSync(join(folder, 'identity/left'), '');
  const secrets = { 'client-secret': 'not known yet', 'server-secret': 'not known yet' };
  const config = checkConfig(
    gatewayConfigSchema,
    {
      gateway: { id: 'gw-1', state: join(folder, 'state.db') },
      mqtt: { url: 'mqtts://broker.example' },
      enrolment: { username: 'claim', password: 'password of the claim' },
      'dm-server': { id: 'dm.example', ...secrets },
    },
    'test',
  );
  const [clock, events, stop] = [new HandClock(), new EventRecorder(), new AbortController()];
  const departed = departIfNeeded(config, { clock, entropy: systemEntropy, events }, stop.signal);
  await events.until('departure.left', { gateway: 'gw-1' });
  assert.equal(clock.timers, 1);
  // Node takes a longer one for one of a millisecond.
  assert.ok(clock.next! < 2 ** 31, String(clock.next));
  stop.abort();
  await assert.rejects(departed, { name: 'AbortError' });
  assert.equal(clock.timers, 0);
});

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { BoardNetwork } from '../../../src/gateway/update/board-network.ts';
import { EventRecorder } from '../../event-recorder.ts';

test('a turn of the network is told once, upstream too, and anew when it comes again after the configured one', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-turn-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'turn');
  const events = new EventRecorder();
  const told: string[] = [];
  const network = new BoardNetwork(
    file,
    { fault: (subject, { kind }) => told.push(`${subject} ${kind}`) },
    events,
  );
  const turn = (text: string) => {
    writeFileSync(file, `${text}\n`);
    for (let connections = 0; connections < 3; connections++) network.tell();
  };
  network.tell();
  turn('configured');
  assert.equal(events.all.length, 0);
  turn('eth1');
  turn('dhcp');
  turn('configured');
  turn('dhcp');
  assert.deepEqual(
    events.all.map(({ name, fields }) => `${name} ${fields.uplink}`),
    ['network.fell-back eth1', 'network.fell-back dhcp', 'network.fell-back dhcp'],
  );
  assert.deepEqual(told, Array(3).fill('network network'));
});

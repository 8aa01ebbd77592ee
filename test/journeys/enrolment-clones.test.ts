import assert from 'node:assert/strict';
import { cpSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { EnrolmentSite } from './enrolment-site.ts';

test('a copied board is noticed by the head-end and by the boards, and a restart is not taken for one', {
  timeout: 60_000,
}, async () => {
  await using site = await EnrolmentSite.open();
  const headend = await site.headend({ allow: [{ gateway: 'gw-1' }] });
  const board = site.board('gw-1');
  await board.enrol();
  const first = await board.start();
  await site.headendEvents.until('gateway.state', { online: true });
  await first[Symbol.asyncDispose]();
  const again = site.board('gw-1', {}, board.folder);
  const original = site.use(await again.start());
  assert.equal(site.headendEvents.count('gateway.cloned'), 0);

  const folder = mkdtempSync(join(site.folder, 'copy-'));
  for (const name of ['identity', 'identity.key'])
    cpSync(join(board.folder, name), join(folder, name), { recursive: true });
  const copied = site.board('gw-1', {}, folder);
  const thrownOut = again.events.next('mqtt.disconnected');
  const copy = site.use(await copied.start());
  await thrownOut;
  // The original connects again, and its boot ID comes back.
  const back = again.events.next('mqtt.connected');
  await again.leap(2000);
  await back;
  const { fields } = await site.headendEvents.until('gateway.cloned');
  assert.equal(fields.gateway, 'gw-1');
  const [view] = headend.gateways();
  assert.equal(view?.id, 'gw-1');
  assert.ok(view?.cloned !== undefined && Date.parse(view.cloned) > 0);
  await again.events.until('mqtt.rival');
  const reasons = [original, copy].map((one) => one.status().uplink.reason ?? '');
  assert.ok(
    reasons.some((reason) => /another|taken over/i.test(reason)),
    reasons.join(' | '),
  );
});

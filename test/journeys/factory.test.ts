import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, test } from 'node:test';
import { parse } from 'smol-toml';
import { makeBatch } from '../../firmware-image/factory/batch.ts';
import { checkGatewayConfig } from '../../src/gateway/enrolled-config.ts';
import { provision } from '../../src/gateway/update/provisioning.ts';
import { asker, startApi } from '../headend/api-client.ts';
import { Board, EnrolmentSite } from './enrolment-site.ts';
import type { Toml } from './site.ts';

/** Makes a batch for a site. Returns its folder, and its manifest as the factory has written it. */
function batchFor(site: EnrolmentSite, count: number) {
  const config = join(site.folder, 'gateway.toml');
  writeFileSync(
    config,
    `[coap]
port = 0
insecure-plain-coap = true
[mqtt]
url = "${site.url}"
ca = "${basename(site.ca)}"
[enrolment]
cert = "${basename(site.claim.cert)}"
key = "${basename(site.claim.key)}"
`,
  );
  const folder = join(mkdtempSync(join(site.folder, 'factory-')), 'batch');
  makeBatch({ batch: 'plant-7-batch-1', site: 'plant-7', count, config, days: 365, to: folder });
  const manifest = JSON.parse(readFileSync(join(folder, 'manifest.json'), 'utf8'));
  return { folder, manifest };
}

/** A board that was provisioned from its files for CONFIG, as its first boot does it. */
function boardOf(site: EnrolmentSite, batch: string, serial: string): Board {
  const own = mkdtempSync(join(site.folder, 'board-'));
  const [medium, data] = [join(own, 'config'), join(own, 'data')];
  cpSync(join(batch, 'config', serial), medium, { recursive: true });
  provision({ from: medium, to: data }, (config, file) => checkGatewayConfig(config, file));
  assert.ok(!readdirSync(medium).includes('gateway.toml'), 'no code stays on CONFIG');
  const { update: _, ...tables } = parse(readFileSync(join(data, 'config/gateway.toml'), 'utf8')) as Toml;
  const gateway = { ...(tables.gateway as Toml), 'admin-socket': join(own, 'admin.sock') };
  return new Board(own, { ...tables, gateway });
}

describe('a batch from the factory', { timeout: 300_000 }, () => {
  test('the head-end takes its manifest, and boards enrol by it without a person; nobody else does', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend();
    await using api = await startApi(headend);
    const ask = asker(api.url);
    const { folder, manifest } = batchFor(site, 1000);
    const [first, second] = manifest.boards as { gateway: string; serial: string; hash: string }[];

    const early = boardOf(site, folder, second!.serial);
    const stop = new AbortController();
    const asking = early.enrol(stop.signal);
    await early.events.until('enrolment.refused', { reason: 'the code is wrong' });

    const { status, body } = await ask('POST', '/enrolment-manifests', manifest);
    assert.deepEqual([status, body.taken, body.known], [200, 1000, 0]);
    await site.headendEvents.until('enrolment.manifest-taken', { batch: 'plant-7-batch-1', boards: 1000 });

    const board = boardOf(site, folder, first!.serial);
    assert.equal(await board.enrol(), true);
    const [listed] = headend.enrolment!.list(1);
    assert.deepEqual(
      [listed?.gateway, listed?.serial, listed?.state, listed?.by],
      [first!.gateway, first!.serial, 'issued', 'code'],
    );
    const gateway = site.use(await board.start());
    assert.equal(gateway.status().uplink.connected, true);

    // The board that asked too early asks again by itself.
    await early.leap(3_600_000);
    assert.equal(await asking, true);

    const copy = boardOf(site, folder, first!.serial);
    const refused = copy.enrol(stop.signal);
    await copy.events.until('enrolment.refused', { reason: 'another board has used the code' });
    await site.headendEvents.until('enrolment.code-used', { gateway: first!.gateway });
    const again = await ask('POST', '/enrolment-manifests', manifest);
    assert.deepEqual([again.status, again.body.taken, again.body.known], [200, 0, 1000]);
    stop.abort();
    await assert.rejects(refused);
  });

  test('a manifest is taken whole or not at all, and gives nobody the name of another board', async () => {
    await using site = await EnrolmentSite.open();
    const headend = await site.headend({ allow: [{ gateway: 'gw-1' }] });
    await using api = await startApi(headend);
    const ask = asker(api.url);
    await site.board('gw-1').enrol();
    const { folder, manifest } = batchFor(site, 3);
    const [first, second] = manifest.boards;
    const refusals: [status: number, reason: RegExp, manifest: object][] = [
      [
        409,
        /another board is enrolled as gw-1/,
        { ...manifest, boards: [first, { ...second, gateway: 'gw-1' }] },
      ],
      [400, /gateway twice/, { ...manifest, boards: [first, { ...second, gateway: first.gateway }] }],
      [400, /hash twice/, { ...manifest, boards: [first, { ...second, hash: first.hash }] }],
      [400, /expired/, { ...manifest, expires: '2020-01-01T00:00:00.000Z' }],
      [400, /hash/, { ...manifest, boards: [{ ...first, hash: 'the code itself' }] }],
      [400, /version/, { ...manifest, version: 2 }],
      [400, /boards/, { ...manifest, boards: [] }],
      [403, /reserved/, { ...manifest, boards: [first, { ...second, gateway: 'claim' }] }],
    ];
    for (const [status, reason, wrong] of refusals) {
      const { status: got, body } = await ask('POST', '/enrolment-manifests', wrong);
      assert.deepEqual([got, reason.test(JSON.stringify(body))], [status, true], JSON.stringify(body));
    }
    const stop = new AbortController();
    const board = boardOf(site, folder, first.serial);
    const asking = board.enrol(stop.signal);
    await board.events.until('enrolment.refused', { reason: 'the code is wrong' });
    stop.abort();
    await assert.rejects(asking);

    assert.equal((await ask('POST', '/enrolment-manifests', manifest)).body.taken, 3);
    const other = { ...first, gateway: 'plant-7-other' };
    const known = await ask('POST', '/enrolment-manifests', { ...manifest, boards: [other] });
    assert.equal(known.status, 409);
  });
});

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { Site, type Toml } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';
import { selfSigned } from '../peers/certificates.ts';
import { StockClient, type StockClientOptions } from '../peers/stock-client.ts';

test('the stock client of docs/bindings.md is served by the configurations beside it', async (t) => {
  const page = readFileSync(new URL('../../docs/bindings.md', import.meta.url), 'utf8');
  const [, section = ''] = page.split('### A stock client');
  const [gatewayTables, headendTables] = [...section.matchAll(/```toml\n([\s\S]*?)```/g)].map(([, toml]) =>
    parse(toml!),
  ) as [{ http: Toml & { device: [{ id: string }] } }, Toml];
  const folder = mkdtempSync(join(tmpdir(), 'postern-stock-docs-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')] as const;
  selfSigned('localhost', { key, cert }, '-addext', 'subjectAltName=IP:127.0.0.1');
  await using broker = await startAedes();
  await using site = new Site(broker.url);
  await site.headend([], { ...headendTables, policy: { 'assisted-bootstrap': false } });
  const here = { host: '127.0.0.1', port: 0, 'tls-cert': cert, 'tls-key': key };
  const gateway = await site.gateway([], { http: { ...gatewayTables.http, ...here } });
  const compiledIn = {
    deviceId: gatewayTables.http.device[0].id,
    user: 'dmclient',
    password: 'pw',
    serverName: 'operator',
    serverPassword: 'spw',
    mediaType: 'application/vnd.syncml.dm+xml',
    ca: readFileSync(cert, 'utf8'),
  };
  const session = async (more: Pick<StockClientOptions, 'auth' | 'url' | 'serverId'>) => {
    await using client = new StockClient({ ...compiledIn, ...more });
    return await client.session();
  };
  for (const auth of ['basic', 'md5'] as const) {
    const own = { auth, serverId: 'com.operator.dm', url: `${gateway.httpUrl}/syncml/dm` };
    assert.equal(await session(own), 200, auth);
    const far = { auth, serverId: 'dm.example', url: `${gateway.httpUrl}/dm/t/dm.example` };
    assert.equal(await session(far), 200, auth);
  }
});

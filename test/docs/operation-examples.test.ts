import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import * as v from 'valibot';
import { checkConfig } from '../../src/base/config.ts';
import { checkGatewayConfig } from '../../src/gateway/enrolled-config.ts';
import { matchPath } from '../../src/headend/api-route.ts';
import { routes } from '../../src/headend/api-routes.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';

const read = (file: string) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8');

test('the configurations of the README are valid and fit each other', () => {
  const [, section = ''] = read('README.md').split('## With your own broker');
  const [gatewayToml, headendToml] = [...section.matchAll(/```toml\n([\s\S]*?)```/g)].map(([, toml]) =>
    parse(toml!),
  );
  const gateway = checkGatewayConfig(gatewayToml, 'README.md');
  const headend = checkConfig(headendConfigSchema, headendToml, 'README.md');
  assert.equal(gateway['dm-server']?.id, headend.headend.id);
  const account = headend.gateway.find(({ id }) => id === gateway.gateway.id);
  assert.equal(account?.['client-secret'], gateway['dm-server']?.['client-secret']);
  assert.equal(account?.['server-secret'], gateway['dm-server']?.['server-secret']);
});

test('the requests of docs/operations.md fit the API', () => {
  const requests = read('docs/operations.md').matchAll(
    /http:\/\/127\.0\.0\.1:8080(\/[^\s'?]+)\S* --json '(\{[\s\S]*?\})'$/gm,
  );
  const tried = [...requests].map(([, path = '', text = '']) => {
    const posted = routes.find((route) => route.method === 'POST' && matchPath(route.path, path));
    assert.ok(posted?.body, `POST ${path}`);
    const { success, issues } = v.safeParse(posted.body, JSON.parse(text));
    assert.ok(success, `POST ${path} ${text}: ${issues?.[0].message}`);
    return path;
  });
  assert.ok(tried.length >= 10, `${tried.length} requests`);
});

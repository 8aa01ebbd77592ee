import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { checkConfig } from '../../src/base/config.ts';
import { checkGatewayConfig } from '../../src/gateway/enrolled-config.ts';
import { headendConfigSchema } from '../../src/headend/config.ts';

test('the examples of enrolment in docs/operations.md are valid configurations', () => {
  const page = readFileSync(new URL('../../docs/operations.md', import.meta.url), 'utf8');
  const [, section = ''] = page.split('## Enrol a gateway');
  const [headend, gateway] = [...section.matchAll(/```toml\n([\s\S]*?)```/g)].map(([, toml]) => parse(toml!));
  const whole = { headend: { id: 'dm.example' }, ...headend };
  assert.equal(checkConfig(headendConfigSchema, whole, 'docs').enrolment?.policy.length, 1);
  const config = checkGatewayConfig(gateway, 'docs');
  assert.equal(config.enrolment?.serial, 'SN-0815');
  assert.equal(config.mqtt?.cert, undefined, 'the certificate comes by enrolment');
});

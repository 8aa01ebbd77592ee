import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  type BootstrapSecrets,
  parseBootstrapSecurity,
  protectBootstrap,
  verifyBootstrap,
} from '../../../src/wire/syncml/bootstrap-security.ts';
import { bootstrapMac } from '../../../src/wire/syncml/digest.ts';

const body = Buffer.from('a bootstrap');
const both = { network: 'factory-secret', pin: '4711' };

// conforms: BOO-3
describe('each protection is verified with its own secrets only', () => {
  for (const [secrets, protection] of [
    [{ network: both.network }, 'NETWORKID'],
    [{ pin: both.pin }, 'USERPIN'],
    [both, 'USERPIN_NETWORKID'],
  ] as [BootstrapSecrets, string][])
    test(protection, () => {
      const parameters = protectBootstrap(body, secrets);
      assert.match(parameters, new RegExp(`^SEC=${protection}; MAC=[0-9A-F]{40}$`));
      verifyBootstrap(body, `application/vnd.syncml.dm+wbxml; ${parameters}`, both);
      const refused = { code: 'unauthorized' };
      assert.throws(() => verifyBootstrap(Buffer.from('b bootstrap'), parameters, both), refused);
      assert.throws(() => verifyBootstrap(body, parameters, { network: 'x', pin: 'y' }), refused);
      assert.throws(() => verifyBootstrap(body, parameters, {}), refused);
    });
});

// conforms: BOO-3
test('protections by the names and numbers of Client Provisioning are read, in any order, case and quoting', () => {
  const mac = bootstrapMac('4711:factory-secret', body);
  for (const parameters of [
    `SEC=USERNETWPIN; MAC=${mac}`,
    `application/vnd.wap.connectivity-wbxml;SEC=2;MAC=${mac.toLowerCase()}`,
    `text/vnd.wap.connectivity-xml; MAC="${mac}"; SEC="USERNETWPIN"`,
  ])
    verifyBootstrap(body, parameters, both);
  assert.equal(parseBootstrapSecurity(`SEC=0; MAC=${mac}`)?.protection, 'NETWORKID');
  assert.equal(parseBootstrapSecurity(`SEC=NETWPIN; MAC=${mac}`)?.protection, 'NETWORKID');
  assert.equal(parseBootstrapSecurity(`SEC=1; MAC=${mac}`)?.protection, 'USERPIN');
  for (const wrong of [
    '',
    'SEC=NETWPIN',
    `MAC=${mac}`,
    `SEC=9; MAC=${mac}`,
    `SEC=NETWPIN; MAC=${mac.slice(1)}`,
  ])
    assert.equal(parseBootstrapSecurity(wrong), undefined, wrong);
});

test('protecting a bootstrap without any secret is a configuration error', () => {
  assert.throws(() => protectBootstrap(body, {}), { code: 'configuration' });
});

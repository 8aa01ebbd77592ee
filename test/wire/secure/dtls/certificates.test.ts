import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { certificateSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { authority, certificatesOf, type Issued, issue } from './authority.ts';
import { isOpen, Pair, type PairOptions } from './pair.ts';

const root = authority('Test root');
const serverOwn = issue({ commonNames: ['gateway'], dnsNames: ['gateway.example'], purposes: [1] }, root);
const deviceName = 'urn:dev:ops:32473-device';
const device = issue({ uris: [deviceName], commonNames: ['a device'], purposes: [2], keyUsage: 0x80 }, root);
const serverName = 'gateway.example';
const served = certificatesOf(serverOwn, { authorities: [root], rawKeys: { 'raw device': device } });

const credentials = (certificates: Certificates, name = serverName) => ({
  identity: 'own',
  key: undefined as never,
  certificates: { ...certificates, serverName: name },
});
const pairOf = (options: PairOptions = {}, certificates: () => Certificates | undefined = () => served) =>
  new Pair({ ...options, server: { server: { keyOf: () => undefined, certificates }, ...options.server } });
const withDevice = (own: Issued = device, chain: readonly Issued[] = [own]) =>
  certificatesOf(own, { chain, authorities: [root] });
const withRawKeys = certificatesOf(device, { chain: [], rawKeys: { gateway: serverOwn } });

describe('a handshake in each cipher suite', () => {
  for (const suite of certificateSuites)
    for (const wantsCid of [true, false]) {
      test(`${suite.name} with X.509${wantsCid ? ' and connection IDs' : ''}`, async () => {
        const pair = pairOf({ client: { suites: [suite] } });
        const outcome = await pair.connect({ ...credentials(withDevice()), wantsCid });
        assert.ok(isOpen(outcome), JSON.stringify(outcome));
        assert.equal(outcome.association.suite, suite);
        assert.equal(pair.atServerSide?.identity, deviceName);
        for (const text of ['a', 'b'.repeat(1000), '']) assert.ok(pair.talk(text), text);
        assert.equal(pair.server.footprint.halfOpen, 0);
        pair.clock.advance(10_000);
        assert.equal(pair.clock.timers, 0, 'no timer is left');
      });
      test(`${suite.name} with raw public keys${wantsCid ? ' and connection IDs' : ''}`, async () => {
        const pair = pairOf({ client: { suites: [suite] } });
        const outcome = await pair.connect({ ...credentials(withRawKeys, 'gateway'), wantsCid });
        assert.ok(isOpen(outcome), JSON.stringify(outcome));
        assert.equal(pair.atServerSide?.identity, 'raw device');
        assert.ok(pair.talk('hello'));
      });
    }
});

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { authority, type CertificateOptions, certificatesOf, type Issued, issue } from './authority.ts';
import {
  credentials,
  device,
  middle,
  pairOf,
  root,
  served,
  serverName,
  serverOwn,
  withDevice,
  withRawKeys,
} from './certificate-pair.ts';
import { isOpen, Pair } from './pair.ts';

/** How a handshake ends that is refused: the alert that the client is told, and the reason of the one event at the server. */
async function refused(certificates: Certificates, by: Certificates = served, wall?: number) {
  const pair = pairOf({}, () => by);
  if (wall !== undefined) pair.clock.wall = () => wall as never;
  const outcome = await pair.connect(credentials(certificates));
  assert.ok(!isOpen(outcome), 'it must be refused');
  assert.equal(pair.server.footprint.associations, 0);
  assert.equal(pair.server.footprint.halfOpen, 0);
  assert.equal(pair.told.length, 1, pair.told.join());
  return `${/alert (\d+)/.exec(outcome.message)?.[1]} ${pair.told[0]?.replace('refused: ', '')}`;
}
/** A client that offers X.509, and then has no certificate. */
function emptied(): Certificates {
  const chains = [withDevice().own.chain];
  return {
    ...withDevice(),
    own: {
      ...withDevice().own,
      get chain() {
        return chains.pop() ?? [];
      },
    },
  };
}
const year = (number: number) => new Date(`${number}-01-01`);

describe('a certificate that is not believed is told by its alert, and by one event', () => {
  const of = (options: CertificateOptions, issuer: Issued = root) => withDevice(issue(options, issuer));
  const cases: Readonly<Record<string, readonly [Certificates, RegExp]>> = {
    'of another authority': [
      of({ commonNames: ['d'] }, authority('Other')),
      /^48 no configured authority has signed the certificate of CN=d$/,
    ],
    'of another authority with the same name': [of({ commonNames: ['d'] }, authority('Test root')), /^48 /],
    'signed by itself': [withDevice(issue({ commonNames: ['d'] })), /^48 /],
    expired: [of({ commonNames: ['d'], until: year(2022) }), /^45 the certificate of \S+ has expired$/],
    'not valid yet': [
      of({ commonNames: ['d'], from: year(2050) }),
      /^45 the certificate of \S+ is not valid yet$/,
    ],
    'below an authority that has expired': [
      (() => {
        const old = authority('Old', { until: year(2022) }, root);
        const own = issue({ commonNames: ['d'] }, old);
        return withDevice(own, [own, old]);
      })(),
      /^45 the certificate of \S+ has expired$/,
    ],
    'for servers alone': [
      of({ commonNames: ['d'], purposes: [1] }),
      /^43 the extended key usage .* does not allow a client$/,
    ],
    'without signatures in its key usage': [
      of({ commonNames: ['d'], keyUsage: 0x08 }),
      /^43 the key usage of a certificate/,
    ],
    'with a critical extension that nobody heeds': [
      of({ commonNames: ['d'], hasNameConstraints: true }),
      /^43 .*critical extension/,
    ],
    'signed with SHA-1': [of({ commonNames: ['d'], digest: 'sha1' }), /^43 .*SHA-1$/],
    'without a name': [of({ dnsNames: ['d.example'] }), /^42 the certificate has no name of a device$/],
    'with two names': [of({ commonNames: ['d', 'e'] }), /^42 .*more than one name/],
    'with two URNs': [of({ uris: ['urn:x:1', 'urn:x:2'] }), /^42 .*more than one name/],
    'with a line break in its name': [of({ commonNames: ['d\ne'] }), /^42 .*not fit/],
    'with a name that is too long': [of({ commonNames: ['d'.repeat(129)] }), /^42 .*not fit/],
    'below a device': [
      (() => {
        const own = issue({ commonNames: ['d'] }, device);
        return withDevice(own, [own, device]);
      })(),
      /^(43|42) /,
    ],
    'below more authorities than the path length allows': [
      (() => {
        const upper = authority('Upper', { pathLength: 0 }, root);
        const lower = authority('Lower', {}, upper);
        const own = issue({ commonNames: ['d'] }, lower);
        return withDevice(own, [own, lower, upper]);
      })(),
      /^43 there are too many certificates below an authority$/,
    ],
    'in a chain with a gap': [
      (() => {
        const own = issue({ commonNames: ['d'] }, authority('Lost', {}, middle));
        return withDevice(own, [own, middle]);
      })(),
      /^42 a certificate of the chain is not signed by the next one$/,
    ],
    'in a chain of five': [
      withDevice(device, [device, middle, middle, middle, middle]),
      /^42 the chain of certificates is too long$/,
    ],
    'that is missing': [emptied(), /^40 the peer has no certificate$/],
    'with the key of another': [
      { ...withDevice(), own: { ...withDevice().own, privateKey: serverOwn.key } },
      /^51 the client does not have the key of its certificate$/,
    ],
    'that cannot be read': [
      { ...withDevice(), own: { ...withDevice().own, chain: [Buffer.from('no certificate')] } },
      /^42 the certificate cannot be read$/,
    ],
    'with a key of another curve': [
      {
        ...withDevice(),
        own: { ...withDevice().own, chain: [issue({ commonNames: ['d'], curve: 'P-384' }, root).der] },
      },
      /^43 the key of the certificate is not an elliptic curve key on P-256$/,
    ],
  };
  for (const [name, [certificates, wanted]] of Object.entries(cases))
    test(name, async () => {
      assert.match(await refused(certificates), wanted);
    });

  test('a raw public key that is not known', async () => {
    const stranger = certificatesOf(issue({}), { chain: [], rawKeys: { [serverName]: serverOwn } });
    assert.equal(await refused(stranger), '46 the raw public key is not known');
  });

  test('one who presents the certificate or key of another learns nothing of whether it is believed', async () => {
    const thief = { privateKey: issue({}).key };
    const foreign = issue({ commonNames: ['x'] });
    const rawTrust = certificatesOf(device, { chain: [], rawKeys: { [serverName]: serverOwn } });
    const answers = await Promise.all(
      [device, foreign].flatMap((victim) => [
        refused({ ...withDevice(), own: { ...withDevice(victim).own, ...thief } }),
        refused({ ...rawTrust, own: { ...certificatesOf(victim, { chain: [] }).own, ...thief } }),
      ]),
    );
    assert.deepEqual([...new Set(answers)], ['51 the client does not have the key of its certificate']);
  });

  test('a raw public key where the server takes X.509 alone', async () => {
    const raw = certificatesOf(device, { chain: [], rawKeys: { [serverName]: serverOwn } });
    assert.match(await refused(raw, certificatesOf(serverOwn, { authorities: [root] })), /^43 no kind/);
  });
});

describe('the name of a device', () => {
  for (const [name, options, wanted] of [
    ['is the URN of its certificate', { uris: ['urn:x:1'], commonNames: ['d'] }, 'urn:x:1'],
    ['is its common name without a URN', { uris: ['https://d.example'], commonNames: ['d'] }, 'd'],
    ['is any text that a device ID may be', { commonNames: ['gerät-\u20ac'] }, 'gerät-\u20ac'],
  ] as const)
    test(name, async () => {
      const pair = pairOf();
      assert.ok(isOpen(await pair.connect(credentials(withDevice(issue(options, root))))));
      assert.equal(pair.atServerSide?.identity, wanted);
    });
});

describe('the clock', () => {
  const late = authority('Late root', { from: year(2024) });
  const by = certificatesOf(serverOwn, { authorities: [late] });
  const of = (options: CertificateOptions) => withDevice(issue({ commonNames: ['d'], ...options }, late));
  const opens = async (options: CertificateOptions, wall: number) => {
    const pair = pairOf({}, () => by);
    pair.clock.wall = () => wall as never;
    return isOpen(await pair.connect(credentials({ ...of(options), trust: served.trust })));
  };

  test('that begins in 1970 refuses no certificate that is valid, or begins later than its authority', async () => {
    assert.ok(await opens({}, 0));
    assert.ok(await opens({ from: year(2040) }, 0));
  });

  test('that begins in 1970 refuses one that expired before its authority began', async () => {
    assert.match(await refused(of({ until: year(2023) }), by, 0), /^45 .*expired$/);
  });

  test('that is set refuses what has expired and what is not valid yet', async () => {
    const wall = year(2030).getTime();
    assert.ok(await opens({}, wall));
    assert.match(await refused(of({ until: year(2029) }), by, wall), /^45 .*expired$/);
    assert.match(await refused(of({ from: year(2031) }), by, wall), /^45 .*not valid yet$/);
  });
});

describe('a client', () => {
  const outcomeOf = async (certificates: Certificates, by: Certificates, name = serverName) => {
    const pair = pairOf({}, () => by);
    const outcome = await pair.connect(credentials(certificates, name));
    assert.equal(pair.server.footprint.associations, 0);
    return 'message' in outcome ? outcome.message : 'open';
  };
  test('refuses a server of another name, of another authority, with a purpose of clients, or without its key', async () => {
    assert.match(await outcomeOf(withDevice(), served, 'other.example'), /that of another server/);
    const foreign = certificatesOf(issue({ dnsNames: [serverName] }, authority('Other')), {
      authorities: [root],
    });
    assert.match(await outcomeOf(withDevice(), foreign), /no configured authority/);
    const wrong = certificatesOf(issue({ dnsNames: [serverName], purposes: [2] }, root), {
      authorities: [root],
    });
    assert.match(await outcomeOf(withDevice(), wrong), /does not allow a server/);
    const thief = { ...served, own: { ...served.own, privateKey: device.key } };
    assert.match(await outcomeOf(withDevice(), thief), /does not have the key of its certificate/);
    assert.match(await outcomeOf(withRawKeys, served, 'other'), /raw public key is not known/);
  });

  test('with certificates offers and takes no suite with pre-shared keys', async () => {
    const pair = new Pair();
    const outcome = await pair.connect(credentials(withDevice()));
    assert.ok(!isOpen(outcome));
    assert.deepEqual(pair.told, ['refused: no cipher suite suits both']);
  });
});

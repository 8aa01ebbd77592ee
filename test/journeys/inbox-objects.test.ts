import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { NodeOperation } from '../../src/dm/server-session.ts';
import { protectBootstrap } from '../../src/wire/syncml/bootstrap-security.ts';
import { encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { startAedes } from '../peers/brokers.ts';
import { accountNode, Site, secrets } from './site.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };

const format = (name: string, type = '') => `<RTProperties><Format><${name}/></Format>${type}</RTProperties>`;
const leaf = (name: string, value: string, kind = 'chr') =>
  `<Node><NodeName>${name}</NodeName>
     ${format(kind, '<Type><MIME>text/plain</MIME></Type>')}
     <Value>${value}</Value></Node>`;
const inner = (name: string, ...nodes: readonly string[]) =>
  `<Node><NodeName>${name}</NodeName>${format('node')}\n${nodes.join('\n')}</Node>`;
const root = (name: string, type: string, ...nodes: readonly string[]) =>
  `<Node>${name === '' ? '<NodeName/>' : `<NodeName>${name}</NodeName>`}<Path>./Inbox</Path>
     ${format('node', `<Type><DDFName>${type}</DDFName></Type>`)}
     ${nodes.join('\n')}
   </Node>`;

/** An account by which `serverId` and the client prove themselves, with all nodes of the standardized object that operators use. */
const account = (name: string, serverId: string, client: string, own: string, server: string) =>
  root(
    name,
    'urn:oma:mo:oma-dm-dmacc:1.0',
    leaf('AppID', 'w7'),
    leaf('ServerID', serverId),
    leaf('Name', 'Operator'),
    leaf('PrefConRef', './NAP/Operator'),
    inner('ToConRef', inner('1', leaf('ConRef', './NAP/Operator'))),
    inner(
      'AppAddr',
      inner(
        '1',
        leaf('Addr', 'https://dm.example/dm'),
        leaf('AddrType', 'URI'),
        inner('Port', inner('1', leaf('PortNbr', '8443'))),
      ),
    ),
    leaf('AAuthPref', 'DIGEST'),
    inner(
      'AppAuth',
      inner(
        'srv',
        leaf('AAuthLevel', 'SRVCRED'),
        leaf('AAuthType', 'DIGEST'),
        leaf('AAuthName', serverId),
        leaf('AAuthSecret', server),
        leaf('AAuthData', Buffer.from('nonce-s').toString('base64'), 'bin'),
      ),
      inner(
        'cli',
        leaf('AAuthLevel', 'CLCRED'),
        leaf('AAuthType', 'DIGEST'),
        leaf('AAuthName', client),
        leaf('AAuthSecret', own),
        leaf('AAuthData', Buffer.from('nonce-c').toString('base64'), 'bin'),
      ),
    ),
  );

/** Standardized connectivity: an access point. Postern's parties have no place for it. */
const connectivity = (name: string) =>
  root(
    name,
    'urn:oma:mo:oma-connmo-nap:1.0',
    leaf('NAPID', 'nap1'),
    leaf('Name', 'Operator'),
    inner('BearerType', leaf('GSM-GPRS', 'true', 'bool')),
    leaf('NAPAddr', 'internet'),
    leaf('NAPAddrTy', 'APN'),
  );

const documentOf = (...roots: readonly string[]) =>
  `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE MgmtTree PUBLIC "-//OMA//DTD-DM-DDF 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd">
<MgmtTree xmlns="syncml:dmddf1.2"><VerDTD>1.2</VerDTD><Man>Operator</Man><Mod>1</Mod>
${roots.join('\n')}
</MgmtTree>`;

/** Objects of the Inbox with accounts for a server: an account beside connectivity, with and without names. */
const objects = (...credentials: [serverId: string, client: string, own: string, server: string]) =>
  [
    ['account and connectivity', documentOf(account('Operator', ...credentials), connectivity('Operator'))],
    ['connectivity and account', documentOf(connectivity('Operator'), account('Operator', ...credentials))],
    ['an account with an empty NodeName', documentOf(account('', ...credentials))],
    ['both with an empty NodeName', documentOf(connectivity(''), account('', ...credentials))],
  ] as const;

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-inbox-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** The same document in WBXML, as libwbxml writes it. */
function packed(folder: string, xml: string): Buffer {
  const [from, to] = [join(folder, 'a.xml'), join(folder, 'a.wbxml')];
  writeFileSync(from, xml);
  execFileSync('xml2wbxml', ['-o', to, from], { stdio: 'pipe' });
  return readFileSync(to);
}

const added = (type: string, data: string | Uint8Array): NodeOperation => ({
  name: 'Add',
  uri: './Inbox',
  format: 'xml',
  type,
  data,
});

// conforms: TND-23, BOO-1
describe(
  'a device is bootstrapped with a TNDS object of an operator, and its DM server manages it',
  limit,
  () => {
    const credentials = ['dm.example', id, secrets.deviceClient(id), secrets.deviceServer(id)] as const;
    for (const [what, document] of objects(...credentials))
      for (const coding of ['XML', 'WBXML'] as const)
        test(`${what}, ${coding}`, async (t) => {
          const folder = folderOf(t);
          const isPacked = coding === 'WBXML';
          const bootstrap = encodeMessage(
            {
              header: {
                verDtd: '1.2',
                verProto: 'DM/1.2',
                sessionId: '0',
                msgId: 0,
                target: { locUri: id },
                source: { locUri: 'dm.example' },
              },
              commands: [
                {
                  name: 'Add',
                  cmdId: '1',
                  items: [
                    {
                      target: { locUri: './Inbox' },
                      meta: { format: 'xml', type: isPacked ? TndsMediaType.Wbxml : TndsMediaType.Xml },
                      data: isPacked ? packed(folder, document) : document,
                    },
                  ],
                },
              ],
              final: true,
            },
            MediaType.Wbxml,
          );
          const file = join(folder, 'bootstrap');
          writeFileSync(file, bootstrap);
          const protection = protectBootstrap(bootstrap, { network: secrets.factory(id) });
          await using broker = await startAedes();
          await using site = new Site(broker.url);
          const headend = await site.headend([id]);
          const gateway = await site.gateway([]);
          const device = site.device(id, gateway, {
            factory: true,
            top: { bootstrap: { file, type: `${MediaType.Wbxml}; ${protection}` } },
          });
          await device.start();
          assert.deepEqual(device.servers, ['dm.example']);
          await device.attached;
          const node = await accountNode(headend, id, 'dm.example');
          const [address] = await headend.manage(id, [
            { name: 'Get', uri: `./DMAcc/${node}/AppAddr/main/Addr` },
          ]);
          assert.equal(address?.results[0]?.data, 'https://dm.example:8443/dm');
        });
  },
);

// conforms: TND-23
describe(
  'a gateway gets an account for a further DM server as such an object, and is managed by it',
  limit,
  () => {
    const credentials = ['other.example', 'gw-1', secrets.gatewayClient, secrets.gatewayServer] as const;
    for (const [what, document] of objects(...credentials))
      test(what, async (t) => {
        await using broker = await startAedes();
        await using first = new Site(broker.url);
        await using second = new Site(broker.url);
        const own = await first.headend([]);
        const other = await second.headend([], {
          headend: { id: 'other.example', state: ':memory:', 'session-timeout': 20 },
        });
        await first.gateway([]);
        const octets = packed(folderOf(t), document);
        // Nothing is kept of an object of which one part is refused.
        const incomplete = documentOf(
          account('', ...credentials),
          account('x', 'third.example', 'gw-1', 'secret', ''),
        );
        const outcomes = await own.manage('gw-1', [
          added(TndsMediaType.Xml, documentOf(connectivity('Operator'))),
          added(TndsMediaType.Xml, incomplete),
          { name: 'Get', uri: './DMAcc' },
          added(TndsMediaType.Xml, document),
          // The server that gave the account may give it again.
          added(TndsMediaType.Wbxml, octets),
          { name: 'Get', uri: './DMAcc' },
        ]);
        assert.deepEqual(
          outcomes.map(({ status }) => status),
          [404, 400, 200, 200, 200, 200],
        );
        const names = (at: number) => String(outcomes[at]?.results[0]?.data).split('/').length;
        assert.deepEqual([names(2), names(5)], [1, 2]);
        const node = await accountNode(own, 'gw-1', 'other.example');
        const asked = ['ServerID', 'AppAddr/main/Addr'].map((name) => ({
          name: 'Get' as const,
          uri: `./DMAcc/${node}/${name}`,
        }));
        const found = await other.manage('gw-1', asked);
        assert.deepEqual(
          found.map(({ results }) => results[0]?.data),
          ['other.example', 'https://dm.example:8443/dm'],
        );
      });
  },
);

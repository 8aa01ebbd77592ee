import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { decodeProvisioning } from '../../../src/wire/syncml/provisioning.ts';
import { decodeTnds } from '../../../src/wire/syncml/tnds.ts';
import { decodeXml } from '../../../src/wire/syncml/xml.ts';

const syncml = (doctype: string) =>
  decodeXml(
    Buffer.from(`<?xml version="1.0"?><!DOCTYPE${doctype}><SyncML xmlns="SYNCML:SYNCML1.2"></SyncML>`),
  ).name;
const provisioning = (doctype: string) =>
  decodeProvisioning(
    Buffer.from(
      `<?xml version="1.0"?><!DOCTYPE${doctype}><wap-provisioningdoc><characteristic type="APPLICATION"/></wap-provisioningdoc>`,
    ),
  )[0]?.type;
const tnds = (doctype: string) =>
  decodeTnds(
    `<?xml version="1.0"?><!DOCTYPE${doctype}><MgmtTree><VerDTD>1.2</VerDTD><Node><NodeName>a</NodeName></Node></MgmtTree>`,
  ).root.name;

/** A document with a document type of its own kind: its reader, what the reader finds, and the DTD by its name and address. */
const kinds = [
  [
    'a message',
    syncml,
    'SyncML',
    'SyncML',
    '"-//SYNCML//DTD SyncML 1.2//EN"',
    '"http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_RepPro_DTD-V1_2.dtd"',
  ],
  // Device information of data synchronization is inside of a message, and its document type is sometimes before that.
  [
    'a message with device information',
    syncml,
    'SyncML',
    'DevInf',
    '"-//SYNCML//DTD DevInf 1.2//EN"',
    '"http://www.openmobilealliance.org/tech/DTD/OMA-TS-SyncML_DevInf_DTD-V1_2.dtd"',
  ],
  [
    'a provisioning document',
    provisioning,
    'APPLICATION',
    'wap-provisioningdoc',
    '"-//WAPFORUM//DTD PROV 1.0//EN"',
    '"http://www.wapforum.org/DTD/prov.dtd"',
  ],
  [
    'a DM tree',
    tnds,
    'a',
    'MgmtTree',
    '"-//OMA//DTD-DM-DDF 1.2//EN"',
    '"http://www.openmobilealliance.org/tech/DTD/DM_DDF-V1_2.dtd"',
  ],
] as const;

for (const [what, read, found, name, publicId, address] of kinds) {
  // conforms: REP-15
  describe(`${what}: a document type that only names the DTD is skipped`, () => {
    for (const doctype of [
      ` ${name}`,
      ` ${name} PUBLIC ${publicId}`,
      ` ${name} PUBLIC ${publicId} ${address}`,
      ` ${name} SYSTEM ${address}`,
      `\n  ${name}\n SYSTEM 'own.dtd' `,
      ` ${name} PUBLIC ${publicId} ${address} []`,
      ` ${name} [\n]`,
    ])
      test(doctype.replaceAll('\n', ' '), () => {
        assert.equal(read(doctype), found);
      });
  });

  // conforms: REP-15
  describe(`${what}: a document type with anything inside, or of another kind, is refused`, () => {
    for (const doctype of [
      ` ${name} [<!ENTITY a "b">]`,
      ` ${name} [<!ELEMENT ${name} ANY>]`,
      ` ${name} [<!-- nothing -->]`,
      ` ${name} [<?oma-syncml-ver supported-versions="1.2"?>]`,
      ` ${name} PUBLIC ${publicId} ${address} [<!ENTITY % a SYSTEM "file:///etc/passwd">]`,
      ` ${name} SYSTEM ${address} [<!ENTITY % a SYSTEM "http://127.0.0.1/">%a;]`,
      ` ${name} [] [<!ENTITY a "b">]`,
      ' html',
      ` ${name} SYSTEM`,
      ` ${name}x`,
      '',
    ])
      test(doctype, () => {
        assert.throws(() => read(doctype), { code: 'malformed' });
      });
  });
}

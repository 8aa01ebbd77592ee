import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decodeXml } from '../../../src/wire/syncml/xml.ts';

const read = (doctype: string) =>
  decodeXml(
    Buffer.from(`<?xml version="1.0"?><!DOCTYPE${doctype}><SyncML xmlns="SYNCML:SYNCML1.2"></SyncML>`),
  );

// conforms: REP-15
for (const doctype of [
  ' SyncML',
  ' SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" "http://www.openmobilealliance.org/tech/DTD/x.dtd"',
  ' SyncML PUBLIC "-//SYNCML//DTD SyncML 1.1//EN"',
  "\n  SyncML\n SYSTEM 'syncml.dtd' ",
])
  test(`the document type${doctype.replaceAll('\n', ' ')} is skipped`, () => {
    assert.equal(read(doctype).name, 'SyncML');
  });

// conforms: REP-15
for (const doctype of [
  ' SyncML [<!ENTITY a "b">]',
  ' SyncML PUBLIC "-//SYNCML//DTD SyncML 1.2//EN" "x.dtd" [<!ENTITY % a SYSTEM "file:///etc/passwd">]',
  ' html',
  ' SyncML SYSTEM',
  '',
])
  test(`the document type "${doctype}" is refused`, () => {
    assert.throws(() => read(doctype), { code: 'malformed' });
  });

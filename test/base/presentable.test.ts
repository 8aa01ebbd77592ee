import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fitsXml, forXml, identityBytes, presentable } from '../../src/base/presentable.ts';
import { escapeXml } from '../../src/wire/syncml/escape-xml.ts';

/** Any string of JavaScript: control characters and halves of surrogate pairs included. */
const anyText = fc.oneof(
  fc.string({ unit: fc.nat(0xffff).map((unit) => String.fromCharCode(unit)), maxLength: 300 }),
  fc.string({ unit: 'binary', maxLength: 300 }),
);

test('what a device says becomes one line that XML can hold, within its bound', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const shown = presentable(text);
      assert.ok(fitsXml(shown));
      assert.ok(shown.isWellFormed());
      assert.ok(Buffer.byteLength(shown) <= identityBytes);
      assert.doesNotMatch(shown, /[\n\r\t\u007f-\u009f\u2028\u2029]/);
      escapeXml(shown);
      assert.equal(presentable(shown), shown, 'what is presentable stays as it is');
    }),
    { numRuns: 2000 },
  );
});

test('plain words stay, and a control character becomes U+FFFD', () => {
  assert.equal(presentable('Müller & Söhne <GmbH> 中文 🚪'), 'Müller & Söhne <GmbH> 中文 🚪');
  assert.equal(presentable('Caf\u001b'), 'Caf\ufffd');
  assert.equal(presentable('a\ud83d'), 'a\ufffd');
  assert.equal(presentable('two\nlines'), 'two\ufffdlines');
});

test('a text that is too long is cut between characters', () => {
  assert.equal(presentable('🚪🚪', 7), '🚪');
  assert.equal(presentable('äöü', 5), 'äö');
  assert.equal(presentable('a'.repeat(200)), 'a'.repeat(identityBytes));
});

test('XML can hold what forXml gives, and what fitsXml accepts', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      escapeXml(forXml(text));
      if (fitsXml(text)) assert.equal(forXml(text), text);
      else assert.throws(() => escapeXml(text));
    }),
    { numRuns: 2000 },
  );
});

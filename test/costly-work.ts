import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { StatementSync } from 'node:sqlite';
import { mock } from 'node:test';

/** Functions of `node:crypto` that take longer than a look into a map. */
const cryptoCalls = [
  'createHmac',
  'createHash',
  'hash',
  'timingSafeEqual',
  'createCipheriv',
  'createDecipheriv',
];
const statementCalls = ['all', 'get', 'run', 'iterate'];

/**
 * Does some work, and counts what costs time in it: hashes, MACs, ciphers, and statements of a database, whatever module asks for them.
 * Unlike the time itself, the counts are the same in each run. Only for work that nothing else goes on beside.
 * @returns the result, and the counts by the names of the functions
 */
export async function costlyWork<T>(
  work: () => Promise<T>,
): Promise<{ readonly result: T; readonly calls: Readonly<Record<string, number>> }> {
  const calls: Record<string, number> = {};
  const spied = [
    ...cryptoCalls.map((name) => [crypto, name] as const),
    ...statementCalls.map((name) => [StatementSync.prototype, name] as const),
  ].map(([object, name]) => {
    const methods = object as unknown as Record<string, (...parameters: unknown[]) => unknown>;
    const original = methods[name]!;
    return mock.method(methods, name, function (this: unknown, ...parameters: unknown[]) {
      calls[name] = (calls[name] ?? 0) + 1;
      return original.apply(this, parameters);
    });
  });
  // Imports by name see it too.
  syncBuiltinESMExports();
  try {
    return { result: await work(), calls };
  } finally {
    for (const { mock: spy } of spied) spy.restore();
    syncBuiltinESMExports();
  }
}

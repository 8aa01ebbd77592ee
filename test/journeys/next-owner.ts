import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Headend } from '../../src/headend/headend.ts';
import { EnrolmentSite } from './enrolment-site.ts';

/** The next owner, with a broker and an authority of its own. */
export async function nextOwner(): Promise<{ site: EnrolmentSite; headend: Headend }> {
  const site = await EnrolmentSite.open();
  const headend = await site.headend(
    {},
    { headend: { id: 'dm.next', state: join(site.folder, 'headend.db'), 'session-timeout': 20 } },
  );
  return { site, headend };
}

/** The order to pass a gateway to the next owner, by this code. */
export const orderFor = (
  { site }: { site: EnrolmentSite },
  code: string,
  keep = true,
  server = 'dm.next',
) => ({
  server,
  code,
  url: site.url,
  ca: readFileSync(site.ca, 'utf8'),
  cert: readFileSync(site.claim.cert, 'utf8'),
  key: readFileSync(site.claim.key, 'utf8'),
  keep,
});

/** ServerID of the owner, as a head-end reads it. */
export const ownerBy = async (headend: Headend) =>
  (await headend.manage('gw-1', [{ name: 'Get', uri: './GwOwner/Server' }]))[0]?.results[0]?.data;

import type { Events } from '../../src/base/events.ts';
import { HeadendApi } from '../../src/headend/api.ts';
import type { Headend } from '../../src/headend/headend.ts';
import { EventRecorder } from '../event-recorder.ts';

/** The token that `startApi` has the API take. */
export const token = 'token-of-the-tests';
export const authorization = { authorization: `Bearer ${token}` };

/** Starts the API of a head-end at a free port of the loopback interface, with `token`. */
export async function startApi(headend: Headend, events: Events = new EventRecorder()): Promise<HeadendApi> {
  const api = new HeadendApi({
    headend,
    events,
    token: { accepts: (given) => given === token },
    settings: { host: '127.0.0.1', port: 0, hosts: [], origins: [] },
  });
  await api.start();
  return api;
}

import type { Clock } from '../../base/clock.ts';
import { Code } from '../../wire/coap/codes.ts';
import { ContentFormat } from '../../wire/coap/content-formats.ts';
import { reply } from '../../wire/coap/message.ts';
import { Observable } from '../../wire/coap/observe.ts';
import type { Resource } from '../../wire/coap/router.ts';
import { paths, resourceTypes } from '../../wire/resources.ts';
import type { LocalEndpoint } from './coap-network.ts';

/**
 * CoAP resource `/gw/status`: `online` or `offline`, the state of the uplink. It is observable, so a device need not
 * wait for a timeout to find out.
 */
export class UplinkStatus {
  readonly #clock: Clock;
  readonly #uplink: { readonly connected: boolean };
  readonly #observables = new Set<Observable>();

  constructor(clock: Clock, uplink: { readonly connected: boolean }) {
    this.#clock = clock;
    this.#uplink = uplink;
  }

  resource(local: LocalEndpoint): Resource {
    let observable: Observable | undefined;
    return {
      path: paths.status,
      links: () => [{ target: paths.status, attributes: { rt: resourceTypes.status, obs: true } }],
      methods: {
        GET: (request) => {
          if (!observable) {
            observable = new Observable(local.endpoint(), this.#clock, () => this.#represent());
            this.#observables.add(observable);
          }
          return observable.handle(request);
        },
      },
    };
  }

  /** Notifies all observers of the current state. */
  changed(): void {
    for (const observable of this.#observables)
      if (observable.ended) this.#observables.delete(observable);
      else observable.changed();
  }

  #represent() {
    return reply(Code.Content, {
      payload: this.#uplink.connected ? 'online' : 'offline',
      contentFormat: ContentFormat.TextPlain,
      maxAge: 60,
    });
  }
}

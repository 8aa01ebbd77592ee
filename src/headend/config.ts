import * as v from 'valibot';
import {
  authSchemes,
  described,
  identifier,
  integerBetween,
  logSection,
  mqttSection,
  port,
  secret,
  text,
} from '../base/config.ts';
import { gwmoSection } from '../mo/vocabulary.ts';

const party = {
  'client-secret': described(secret, 'Secret by which it proves itself to this server'),
  'client-auth': authSchemes(
    'How it may prove itself: `basic`, `md5`, `mac`; the first is what it is challenged with',
  ),
  'server-secret': described(secret, 'Secret by which this server proves itself to it'),
  'server-auth': authSchemes('How this server proves itself; the first is what it begins with'),
};

const httpUrl = v.pipe(v.string(), v.regex(/^https?:\/\/[^\s/]+/, 'a URL such as https://dm.example/dm'));

/** The head-end's configuration file. */
export const headendConfigSchema = v.strictObject({
  headend: v.strictObject({
    id: described(identifier, 'ServerID of this DM server'),
    state: described(
      v.optional(text, 'headend.db'),
      'File that holds nonces and associations; `:memory:` forgets them',
    ),
    route: described(
      v.optional(identifier, 'worker-1'),
      'Name of this worker: sessions that it began go on through dm/{gateway}/up/{route}',
    ),
    group: described(
      v.optional(identifier),
      'Shares first packages with the other workers of this group, by a shared subscription of the broker',
    ),
    'session-timeout': described(
      v.optional(integerBetween(1, 600), 60),
      'Seconds that a device may take to open a session it was asked for',
    ),
  }),
  api: v.optional(
    v.strictObject({
      host: described(
        v.optional(text, '127.0.0.1'),
        'Address of the HTTP API; it has no authentication of its own',
      ),
      port: described(v.optional(port, 8080), 'Port of the HTTP API; 0 takes a free one'),
    }),
    {},
  ),
  mqtt: mqttSection,
  relay: described(
    v.optional(
      v.strictObject({
        url: described(httpUrl, 'Where an existing DM server takes packages over HTTP'),
        timeout: described(v.optional(integerBetween(1, 300), 30), 'Seconds that it may take to answer one'),
      }),
    ),
    'Hands packages of devices to a DM server that speaks HTTP, and its answers back; gateways stay with this server',
  ),
  policy: v.optional(
    v.strictObject({
      'assisted-bootstrap': described(
        v.optional(v.boolean(), true),
        'Give a device that comes through a gateway which it has no account for an account for that gateway (GwMO 8.4.1)',
      ),
      assign: described(
        v.optional(
          v.array(
            v.strictObject({
              device: described(text, 'DevId, or its beginning and `*`'),
              gateway: described(identifier, 'The gateway that it belongs to'),
            }),
          ),
          [],
        ),
        'Gateways that devices belong to, the first that fits; any other device belongs to the one that it comes through',
      ),
    }),
    {},
  ),
  gateway: described(
    v.optional(v.array(v.strictObject({ id: described(identifier, 'Name of the gateway'), ...party })), []),
    'Gateways of this server',
  ),
  device: described(
    v.optional(v.array(v.strictObject({ id: described(text, 'DevId of the End Device'), ...party })), []),
    'End Devices that have an account for this server from their factory',
  ),
  gwmo: gwmoSection,
  log: logSection,
});

export type HeadendConfig = v.InferOutput<typeof headendConfigSchema>;

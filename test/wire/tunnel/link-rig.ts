import { systemEntropy } from '../../../src/base/entropy.ts';
import { MqttLink, type MqttLinkParts } from '../../../src/wire/tunnel/mqtt-link.ts';
import type { MqttSettings } from '../../../src/wire/tunnel/mqtt-settings.ts';
import { EventRecorder } from '../../event-recorder.ts';
import { HandClock } from '../../hand-clock.ts';

interface Received {
  readonly topic: string;
  readonly text: string;
  readonly qos: number;
}

/** A link of gateway `gw-1` that has begun to connect. Its time stands still unless the test moves it. */
export function linkTo(
  url: string,
  settings: Partial<MqttSettings> = { protocol: 4 },
  more: Partial<MqttLinkParts> = {},
) {
  const clock = new HandClock();
  const events = new EventRecorder();
  const received: Received[] = [];
  const link = new MqttLink({
    settings: { url, protocol: 'auto', ...settings },
    clientId: 'gw-1',
    subscriptions: ['dm/gw-1/down'],
    carrier: { topic: 'dm/gw-1/up/~', isNeeded: () => false },
    clock,
    entropy: systemEntropy,
    events,
    received: (topic, payload, { qos }) => received.push({ topic, text: payload.toString(), qos }),
    ...more,
  });
  link.start();
  return { link, clock, events, received };
}

export const up = (text: string | Buffer, more: { quick?: boolean; flow?: string } = {}) => ({
  topic: 'dm/gw-1/up',
  payload: Buffer.from(text),
  ...more,
});

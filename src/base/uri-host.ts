/** An address or a name as a URI has it: IPv6 stands in brackets (RFC 3986, section 3.2.2). */
export const uriHost = (host: string): string => (host.includes(':') ? `[${host}]` : host);

/** The part of noVNC that the screen page uses. */
declare module "@novnc/novnc/lib/rfb.js" {
  export default class RFB extends EventTarget {
    constructor(target: Element, channel: WebSocket | string, options?: { shared?: boolean });
    scaleViewport: boolean;
    focusOnClick: boolean;
    showDotCursor: boolean;
    background: string;
    sendCtrlAltDel(): void;
    disconnect(): void;
    focus(): void;
    blur(): void;
  }
}

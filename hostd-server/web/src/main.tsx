import { render } from "preact";
import { App } from "./app";
import { startLanguage } from "./i18n";
import "./state/theme";
import "./style/index.css";

void startLanguage().then(() => render(<App />, document.getElementById("app")!));

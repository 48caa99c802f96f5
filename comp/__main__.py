from comp.cli.main import main

raise SystemExit(main())
